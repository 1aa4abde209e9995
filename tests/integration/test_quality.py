"""The shipped model asked ten times, and its fingerprint made again, from the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gateway.bundle.files import resolve_bundle
from tests.support.head import head, write_head

BUNDLE = resolve_bundle("builtin:brain_mask", Path.cwd())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the shipped bundle, to change."""
    return Path(shutil.copytree(BUNDLE, tmp_path / "bundle", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_brain_has_an_interval_and_a_map(tmp_path: Path, bundle: Path) -> None:
    """Doubt lies at the brain's border, not in its middle; the number is the plain one."""
    with (bundle / "hilum.yaml").open("a") as manifest:
        manifest.write("uncertainty: {method: mc_dropout, samples: 3}\n")
    write_head(tmp_path / "in")
    command = ["process", str(tmp_path / "in"), "--model", str(bundle), "--output", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-m", "gateway.cli", *command], check=True, timeout=240)
    (volume,) = json.loads((tmp_path / "out/result.json").read_text())["measurements"]
    assert volume["value"] == pytest.approx(1180, rel=0.02)
    assert 0.85 * volume["value"] < volume["low"] < volume["high"] < 1.1 * volume["value"]
    found = pydicom.dcmread(tmp_path / "out/pm.dcm")
    values = np.frombuffer(found.FloatPixelData, "<f4").reshape(-1, found.Rows, found.Columns)
    assert values.min() >= 0
    assert 0.9 < values.max() <= 1
    assert 0.001 < float((values > 0.5).mean()) < 0.1
    middle = [length // 2 for length in head().voxels.shape[1:]]
    assert values[len(values) // 2, middle[0], middle[1]] == 0


def test_a_fingerprint_of_ones_own_images(tmp_path: Path, bundle: Path) -> None:
    """One series is measured, the file is replaced, and what is no series the model takes is an error."""
    write_head(tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("no image")
    command = [sys.executable, "-m", "gateway.cli", "models", "fingerprint", str(bundle)]
    ran = subprocess.run([*command, str(tmp_path / "in")], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, json.loads(ran.stdout)["images"]) == (0, 1)
    assert json.loads((bundle / "fingerprint.json").read_text())["images"] == 1
    empty = subprocess.run([*command, str(tmp_path / "bundle")], capture_output=True, text=True, timeout=120)
    assert (empty.returncode, "no series" in empty.stderr) == (2, True)
