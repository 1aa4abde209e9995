"""A bundle's way into a site and out of it, by the commands an administrator types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gateway.bootstrap import make_models
from gateway.bundle.files import bundle_digest, read_manifest
from gateway.domain.errors import ConfigurationError
from gateway.settings import read_settings
from tests.support.bundles import write_bundle
from tests.support.series import axial, write_series

VOXELS = np.zeros((8, 24, 24))
VOXELS[2:5, 6:14, 4:10] = 900
VOXELS += np.arange(24)
MILLILITRES = 0.432  # 144 voxels of 3 mm3


def hilum(*arguments: object, answers: str = "") -> subprocess.CompletedProcess[str]:
    """One command."""
    command = [sys.executable, "-m", "gateway.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=answers, timeout=120, check=False)


def with_cases(bundle: Path, *cases: dict[str, Any], **more: Any) -> Path:
    """The bundle with acceptance cases, whose images lie in it, and more in its manifest."""
    write_series(bundle / "acceptance/images", VOXELS, axial(VOXELS.shape))
    manifest = yaml.safe_load((bundle / "hilum.yaml").read_text())
    manifest["acceptance"] = [{"input": "acceptance/images", **case} for case in cases]
    (bundle / "hilum.yaml").write_text(yaml.safe_dump(manifest | more))
    return bundle


RIGHT = {"name": "box", "expect": [{"segment": 1, "min": MILLILITRES - 0.001, "max": MILLILITRES + 0.001}]}
WRONG = {"name": "too much", "expect": [{"segment": 1, "min": 1.0, "max": 2.0}]}


def test_a_bundle_comes_and_goes(tmp_path: Path) -> None:
    """Added: verified, accepted, copied, pinned, ready to serve. Tampered with: refused. Pinned again: ready. Removed: gone."""
    site = tmp_path / "hilum.yaml"
    site.write_text(f"# ours\ndata_dir: {tmp_path / 'data'}\n")
    bundle = with_cases(write_bundle(tmp_path / "bundle"), RIGHT, acceleration={"engine": "onnx"})
    added = hilum("models", "add", bundle, "--name", "bright", "--config", site)
    assert added.returncode == 0, added.stderr
    assert "imports subprocess" in added.stdout
    entry = read_settings(site).models["bright"]
    assert entry.digest == bundle_digest(bundle) == bundle_digest(Path(entry.bundle))
    assert list(make_models(read_settings(site))) == ["bright"]

    script = Path(entry.bundle) / "scripts/network.py"
    script.write_text(script.read_text() + "\n# changed\n")
    with pytest.raises(ConfigurationError, match=r"models\.bright: bright is not the build that is pinned"):
        make_models(read_settings(site))
    assert hilum("models", "pin", "bright", "--config", site).returncode == 0
    with pytest.raises(ConfigurationError, match="have not passed on this machine"):
        make_models(read_settings(site))
    tested = hilum("models", "test", "bright", "--config", site)
    assert tested.returncode == 0, tested.stderr
    assert re.search(r"agrees with itself by 1\.0000 at least, and is \d+\.\d\d x as fast", tested.stdout)
    assert list(make_models(read_settings(site))) == ["bright"]

    assert hilum("models", "remove", "bright", "--config", site).returncode == 0
    assert (read_settings(site).models, Path(entry.bundle).exists()) == ({}, False)
    assert site.read_text().startswith("# ours\n")


def test_a_bundle_that_fails_its_cases_does_not_come_in(tmp_path: Path) -> None:
    """The reason is the number that it got wrong; the site's file is as it was."""
    site = tmp_path / "hilum.yaml"
    site.write_text(f"data_dir: {tmp_path / 'data'}\n")
    before = site.read_text()
    bundle = with_cases(write_bundle(tmp_path / "bundle"), RIGHT, WRONG, {"name": "refused", "refused": "gap"})
    ran = hilum("models", "add", bundle, "--config", site)
    assert ran.returncode == 2
    assert "too much: segment 1 measures 0.432, not 1 to 2; refused: done, where it should be refused" in ran.stderr
    assert site.read_text() == before


def test_a_manifest_is_written_from_the_metadata(tmp_path: Path) -> None:
    """With proposals taken as they are, the bundle verifies; a second time nothing is overwritten."""
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "hilum.yaml").unlink()
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    form = {
        "inputs": {"image": {"modality": "CT", "spatial_shape": [96, 96, 64]}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "Liver", "2": "Tumour"}}},
    }
    (bundle / "configs/metadata.json").write_text(
        json.dumps(metadata | {"name": "Liver and tumour", "network_data_format": form})
    )
    assert hilum("models", "init", bundle, "--yes").returncode == 0
    made = read_manifest(bundle)
    assert (made.name, made.input.modality) == ("liver_and_tumour", ("CT",))
    assert made.training is not None
    assert made.training.patch == (96, 96, 64)
    assert [segment.label for segment in made.output.segments] == ["Liver", "Tumour"]
    assert hilum("models", "verify", bundle).returncode == 0
    again = hilum("models", "init", bundle, "--yes")
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_questions_are_asked(tmp_path: Path) -> None:
    """And answers taken."""
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "hilum.yaml").unlink()
    ran = hilum("models", "init", bundle, answers="Bright spots\n\n2.0\n\n\n\nMR, CT\n\nSpot\n")
    assert ran.returncode == 0, ran.stderr
    made = read_manifest(bundle)
    assert (made.title, made.name, made.version) == ("Bright spots", "bright_spots", "2.0")
    assert (made.input.modality, made.output.segments[0].label) == (("MR", "CT"), "Spot")


def test_several_series_and_members_are_asked_for(tmp_path: Path) -> None:
    """Two channels propose two series, two files of weights an ensemble."""
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "hilum.yaml").unlink()
    (bundle / "models/second.safetensors").write_bytes(b"other numbers")
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    image = {"modality": "MR", "num_channels": 2, "channel_def": {"0": "T1", "1": "FLAIR"}}
    form = {"inputs": {"image": image}, "outputs": {}}
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata | {"network_data_format": form}))
    weights = "model.safetensors, second.safetensors\nvote\n0.7, 0.3\n"
    ran = hilum("models", "init", bundle, answers=f"Two\n\n\n\n\n\n{weights}\n\n\ndark fluid\nSpot\n")
    assert ran.returncode == 0, ran.stderr
    made = read_manifest(bundle)
    assert [(one.name, one.select) for one in made.inputs] == [
        ("t1", 'series.description.contains("T1")'),
        ("flair", 'series.description.contains("dark fluid")'),
    ]
    assert made.ensemble is not None
    assert (made.ensemble.combine, made.shares) == ("vote", (0.7, 0.3))


def test_a_fusion_comes_in_after_its_parts(tmp_path: Path) -> None:
    """Written from two models of the site; refused without one of them; then verified, accepted, pinned and tested again."""
    site = tmp_path / "hilum.yaml"
    site.write_text(f"data_dir: {tmp_path / 'data'}\n")
    for name in ("one", "other"):
        bundle = write_bundle(tmp_path / name, name=name)
        if name == "other":
            lonely = hilum("models", "init", tmp_path / "both", "--fuse", "one", "--config", site, "--yes")
            assert (lonely.returncode, "of two models or more" in lonely.stderr) == (2, True)
        assert hilum("models", "add", bundle, "--config", site).returncode == 0
    fuse = ("--fuse", "one", "--fuse", "other", "--config", site)
    drafted = hilum("models", "init", tmp_path / "both", *fuse, answers="Both\n\n\n\n\n\nmean\n0.6, 0.4\nleave_out\n")
    assert drafted.returncode == 0, drafted.stderr
    made = read_manifest(tmp_path / "both")
    assert made.fusion is not None
    assert [(part.name, part.weight, part.missing) for part in made.fusion.parts] == [
        ("one", 0.6, "leave_out"),
        ("other", 0.4, "leave_out"),
    ]
    alone = tmp_path / "alone.yaml"
    alone.write_text(f"data_dir: {tmp_path / 'data'}\nmodels:\n  one: {{bundle: {tmp_path / 'one'}}}\n")
    refused = hilum("models", "verify", tmp_path / "both", "--config", alone)
    assert (refused.returncode, "other, which is not among the models" in refused.stderr) == (2, True)
    bundle = with_cases(tmp_path / "both", RIGHT)
    added = hilum("models", "add", bundle, "--config", site)
    assert added.returncode == 0, added.stderr
    assert set(make_models(read_settings(site))) == {"one", "other", "both"}
    tested = hilum("models", "test", "both", "--config", site)
    assert (tested.returncode, "1 acceptance cases passed" in tested.stdout) == (0, True)
