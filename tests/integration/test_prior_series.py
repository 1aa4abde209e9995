"""A model that takes a series of an earlier study: found, registered, named in the report, and never a stranger's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from gateway.bundle.files import read_manifest
from gateway.commands.process import process
from gateway.domain.messages import InputFile
from tests.support.series import input_file, job_order
from tests.support.two_series import BUNDLE, STUDY, TwoSeries, write_two_series
from workers.infer.model import open_model
from workers.load.several import load_inputs
from workers.tasks import run

EARLIER = "2.25.20250102"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of two series, whose second is to be of an earlier study."""
    made = tmp_path_factory.mktemp("bundle") / "tissue_fusion"
    shutil.copytree(BUNDLE, made)
    manifest = made / "hilum.yaml"
    text = manifest.read_text()
    assert "    missing: zeros" in text
    manifest.write_text(text.replace("    missing: zeros", "    study: prior\n    missing: zeros"))
    return made


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> TwoSeries:
    """A T1 of today and a second contrast of the year before, in which the head lay elsewhere."""
    return write_two_series(tmp_path_factory.mktemp("images"), prior=EARLIER)


def test_the_prior_is_registered_and_named(tmp_path: Path, bundle: Path, sent: TwoSeries) -> None:
    """The whole job: spots that only the prior shows are found, results are of today's study, and reports list both."""
    done = process(sent.t1[0].parents[1], bundle, tmp_path / "out")
    flags = done.outcome.flags
    assert any("flair: registered rigidly" in flag for flag in flags), flags
    assert not any("no series for the input" in flag for flag in flags)
    assert f"of the earlier study {EARLIER}" in done.outcome.provenance["input flair"]
    found = {path.name: dcmread(path) for path in done.files if path.suffix == ".dcm"}
    assert {str(one.StudyInstanceUID) for one in found.values()} == {STUDY}
    assert {str(one.StudyDate) for one in found.values()} == {"20260102"}
    segmentation = found["seg.dcm"]
    assert [str(one.SeriesInstanceUID) for one in segmentation.ReferencedSeriesSequence] == [_series(sent.t1[0])]
    assert _dice_of_spots(segmentation, sent) > 0.7
    report = found["sr.dcm"]
    assert "PertinentOtherEvidenceSequence" not in report
    assert _evidence(report) == {
        (STUDY, _series(sent.t1[0])): len(sent.t1),
        (EARLIER, _series(sent.flair[0])): len(sent.flair),
    }


def _stranger(image: Dataset) -> None:
    image.PatientID = "SOMEBODY ELSE"


def _issued_elsewhere(image: Dataset) -> None:
    image.IssuerOfPatientID = "ANOTHER HOSPITAL"


def _nobody(image: Dataset) -> None:
    image.PatientID = ""


def _later(image: Dataset) -> None:
    image.StudyDate = "20270102"


def _of_today(image: Dataset) -> None:
    image.StudyInstanceUID = STUDY


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_stranger, "not certainly of the same patient"),
        (_issued_elsewhere, "not certainly of the same patient"),
        (_nobody, "not certainly of the same patient"),
        (_later, "not of an earlier study"),
        (_of_today, "not of an earlier study"),
    ],
)
def test_what_is_no_prior_is_refused(
    tmp_path: Path, bundle: Path, sent: TwoSeries, spoil: Callable[[Dataset], None], why: str
) -> None:
    """Whatever the order says, the worker looks at the images themselves."""
    order = replace(job_order([], bundle, tmp_path / "out"), inputs=_inputs(sent.t1, _spoiled(sent, tmp_path, spoil)))
    outcome = run(order, open_model(bundle), lambda stage: None)
    assert (outcome.status, outcome.reason_code) == ("refused", "mixed_series")
    assert outcome.reason.startswith("flair: ") and why in outcome.reason
    assert "SOMEBODY" not in outcome.reason


def test_an_input_of_the_study_takes_no_prior(tmp_path: Path, sent: TwoSeries) -> None:
    """Images of another study in the place of one of the study itself are refused, as ever."""
    order = replace(job_order([], BUNDLE, tmp_path / "out"), inputs=_inputs(sent.t1, sent.flair))
    outcome = run(order, open_model(BUNDLE), lambda stage: None)
    assert (outcome.reason_code, outcome.reason) == (
        "mixed_series", "flair: the series are not of one patient and one study"
    )  # fmt: skip


def test_another_head_is_no_prior(tmp_path: Path, bundle: Path, sent: TwoSeries) -> None:
    """Registration judges a prior as any series: what does not lie on the images is refused."""

    def noise(image: Dataset) -> None:
        random = np.random.default_rng(int(image.InstanceNumber))
        image.PixelData = random.integers(0, 900, (image.Rows, image.Columns)).astype(np.uint16).tobytes()

    order = replace(job_order([], bundle, tmp_path / "out"), inputs=_inputs(sent.t1, _spoiled(sent, tmp_path, noise)))
    with pytest.raises(Exception, match=r"flair: not processed: the series") as refusal:
        load_inputs(order, read_manifest(bundle))
    assert getattr(refusal.value, "code", "") == "registration"


def _spoiled(sent: TwoSeries, tmp_path: Path, spoil: Callable[[Dataset], None]) -> list[Path]:
    made = []
    for number, file in enumerate(sent.flair):
        image = dcmread(file)
        spoil(image)
        made.append(tmp_path / f"{number}.dcm")
        image.save_as(made[-1])
    return made


def _inputs(t1: list[Path], prior: list[Path]) -> tuple[InputFile, ...]:
    named = [(path, "t1") for path in t1] + [(path, "flair") for path in prior]
    return tuple(replace(input_file(path), input=name) for path, name in named)


def _series(file: Path) -> str:
    return str(dcmread(file, stop_before_pixels=True).SeriesInstanceUID)


def _dice_of_spots(segmentation: Dataset, sent: TwoSeries) -> float:
    """Of what was painted and the spots as they lie on the T1, by the frames' positions in the patient."""
    painted = np.zeros(sent.spots.shape, bool)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 3:
            place = np.append(np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float), 1)
            painted[round(np.linalg.solve(sent.affine, place)[0])] = frame
    return float(2 * (painted & sent.spots).sum() / (painted.sum() + sent.spots.sum()))


def _evidence(report: Dataset) -> dict[tuple[str, str], int]:
    """Images of each study and series that the report lists; its own segmentation is left out."""
    listed = {
        (str(study.StudyInstanceUID), str(series.SeriesInstanceUID)): len(series.ReferencedSOPSequence)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
    }
    return {key: count for key, count in listed.items() if count > 1}
