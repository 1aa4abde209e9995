"""`hilum process`: a folder in, result objects out, and one clear sentence for everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from tests.support.block import write_block
from tests.support.bundles import write_bundle
from tests.support.head import head, write_head
from tests.support.series import write_series

pytestmark = pytest.mark.slow


def hilum(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the command as a user would."""
    command = [sys.executable, "-m", "gateway.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def refusal(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The sentence of a failed command: one line on stderr, nothing on stdout."""
    assert done.returncode == status, done.stderr + done.stdout
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert "Traceback" not in done.stderr
    return lines[-1]


def test_head_gives_all_results(tmp_path: Path) -> None:
    """The real model on the real head: SEG, SR, result.json and oru.hl7, with the volume in three places."""
    write_head(tmp_path / "in", "oblique", descending=True)
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    done = hilum("process", tmp_path / "in", "--model", "brain-mask", "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] == 1
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    (volume,) = [item["value"] for item in result["measurements"]]
    assert volume == pytest.approx(1180, rel=0.02)
    message = (tmp_path / "out" / "oru.hl7").read_text()
    assert "ORU^R01^ORU_R01" in message
    assert f"|{volume:.6g}|mL^" in message
    assert pydicom.dcmread(tmp_path / "out" / "seg.dcm").Modality == "SEG"
    assert f"{volume:.6g}"[:6] in str(pydicom.dcmread(tmp_path / "out" / "sr.dcm"))


def test_gap_is_refused(tmp_path: Path) -> None:
    """Five missing files: the manifest says refuse, and nothing is left behind."""
    write_head(tmp_path / "in", missing=range(60, 65))
    done = hilum("process", tmp_path / "in", "--model", "brain-mask", "--output", tmp_path / "out")
    assert "gap" in refusal(done)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_stripped_head_is_out_of_scope(tmp_path: Path) -> None:
    """An image that the model was not made for is refused, with what is wrong with it."""
    image = head()
    write_series(tmp_path / "in", image.voxels * image.reference, image.affine)
    done = hilum("process", tmp_path / "in", "--model", "brain-mask", "--output", tmp_path / "out")
    assert "envelope_size: not processed: the images are not such as the model was made for" in refusal(done)


@pytest.mark.parametrize("name", ["crash", "nan"])
def test_bad_models_are_named(tmp_path: Path, name: str) -> None:
    """A model that dies and one that answers nonsense each end with their reason."""
    behaviour, said = {"crash": ("segfault", "SIGSEGV"), "nan": ("nan", "finite")}[name]
    bundle = write_bundle(tmp_path / "bundle", behaviour=behaviour)
    write_block(tmp_path / "in")
    assert said in refusal(hilum("process", tmp_path / "in", "--model", bundle, "--output", tmp_path / "out"))


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    """One byte of the weights is not what the manifest pins."""
    bundle = write_bundle(tmp_path / "bundle", behaviour="threshold")
    (weights,) = bundle.rglob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    write_block(tmp_path / "in")
    said = refusal(hilum("process", tmp_path / "in", "--model", bundle, "--output", tmp_path / "out"), status=2)
    assert "SHA-256" in said


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ("nothing", "no DICOM file"),
        ("text", "no DICOM file"),
        ("ct", "modality CT is not MR"),
        ("two patients", "2 different patients"),
        ("two series", "choose one with --series"),
        ("two contents", "differ in content"),
    ],
)
def test_wrong_folders_are_explained(tmp_path: Path, prepare: str, said: str) -> None:
    """Folders that hold no series for the model: one sentence each, decided before any model is opened."""
    folder = tmp_path / "in"
    folder.mkdir()
    _PREPARE[prepare](folder)
    assert said in refusal(hilum("process", folder, "--model", "brain-mask", "--output", tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_folder_of_links_and_files_of_one_name(tmp_path: Path) -> None:
    """The model's process sees what they stand for, and the output may be a folder deep below one that is there."""
    bundle = write_bundle(tmp_path / "bundle", behaviour="threshold")
    for number, file in enumerate(write_block(tmp_path / "elsewhere")):
        place = tmp_path / f"in/{number}/image.dcm"
        place.parent.mkdir(parents=True)
        place.symlink_to(file)
    output = tmp_path / "a/b/out"
    done = hilum("process", tmp_path / "in", "--model", bundle, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "seg.dcm" in [path.name for path in output.iterdir()]


def test_an_output_that_is_no_folder(tmp_path: Path) -> None:
    """Is said at once."""
    write_block(tmp_path / "in")
    (tmp_path / "out").write_text("")
    said = refusal(hilum("process", tmp_path / "in", "--model", "brain-mask", "--output", tmp_path / "out"), status=2)
    assert said.endswith("is not a folder")


def _two_patients(folder: Path) -> None:
    file = write_block(folder)[3]
    dataset = pydicom.dcmread(file)
    dataset.PatientID = "OTHER"
    dataset.save_as(file)


def _two_series(folder: Path) -> None:
    write_block(folder / "a", seed="a")
    write_block(folder / "b", seed="b")


def _two_contents(folder: Path) -> None:
    file = write_block(folder)[3]
    dataset = pydicom.dcmread(file)
    dataset.SeriesDescription = "another"
    dataset.save_as(folder / "again.dcm")


_PREPARE = {
    "nothing": lambda folder: None,
    "text": lambda folder: (folder / "a.dcm").write_text("hello"),
    "ct": lambda folder: write_block(folder, modality="CT"),
    "two patients": _two_patients,
    "two series": _two_series,
    "two contents": _two_contents,
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("process", "/nowhere", "--model", "brain-mask", "--output", "out"), "is not a folder"),
        (("process", ".", "--model", "brian-mask", "--output", "out"), "no model is called"),
        (("studies", "--config", "missing.yaml"), "missing.yaml"),
        (("explain", "not-a-uid"), "has `hilum serve` been started"),
        (("replay", "everything", "all"), "has `hilum serve` been started"),
    ],
)
def test_wrong_arguments_end_with_two(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """Usage and configuration errors: status 2 and one sentence."""
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert said in refusal(done, status=2)
