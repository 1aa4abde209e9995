"""A classifier that explains itself, and a network of two series: their way into a site and out of it, with acceptance cases."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.bootstrap import make_models
from gateway.bundle.files import resolve_bundle
from gateway.domain.errors import ConfigurationError
from gateway.settings import read_settings
from tests.support.head import head
from tests.support.series import write_series
from tests.support.two_series import BUNDLE, write_two_series

pytestmark = pytest.mark.slow


def hilum(*arguments: object) -> subprocess.CompletedProcess[str]:
    """One command."""
    command = [sys.executable, "-m", "gateway.cli", "models", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def _copy(source: Path, directory: Path, cases: list[dict[str, Any]]) -> Path:
    copy = Path(shutil.copytree(source, directory, ignore=shutil.ignore_patterns("__pycache__")))
    manifest = yaml.safe_load((copy / "hilum.yaml").read_text())
    (copy / "hilum.yaml").write_text(yaml.safe_dump(manifest | {"acceptance": cases}, sort_keys=False))
    return copy


def face_check(directory: Path) -> Path:
    """A head without its skull, and one upside down."""
    cases = [
        {"name": "stripped", "input": "acceptance/stripped", "expect": [{"segment": 3, "min": 80, "max": 100}]},
        {"name": "upside down", "input": "acceptance/turned", "refused": "envelope_turned"},
    ]
    bundle = _copy(resolve_bundle("builtin:face_check", Path.cwd()), directory, cases)
    image = head()
    write_series(bundle / "acceptance/stripped", image.voxels * image.reference, image.affine)
    write_series(bundle / "acceptance/turned", image.voxels[::-1], image.affine)
    return bundle


def tissue_fusion(directory: Path) -> Path:
    """Spots that only the second series shows."""
    case = {"name": "spots", "input": "acceptance/both", "expect": [{"segment": 3, "min": 3.5, "max": 7.0}]}
    bundle = _copy(BUNDLE, directory, [case])
    write_two_series(bundle / "acceptance/both")
    return bundle


@pytest.mark.parametrize("make", [face_check, tissue_fusion])
def test_it_comes_is_tested_and_goes(tmp_path: Path, make: Any) -> None:
    """Verified, added with its cases, ready; changed, it is refused until it is pinned, and fails a case that is wrong; removed."""
    site = tmp_path / "hilum.yaml"
    site.write_text(f"data_dir: {tmp_path / 'data'}\n")
    bundle = make(tmp_path / "bundle")
    assert ": ready (" in hilum("verify", bundle).stdout
    added = hilum("add", bundle, "--name", "it", "--config", site)
    assert added.returncode == 0, added.stderr
    assert list(make_models(read_settings(site))) == ["it"]

    copy = Path(read_settings(site).models["it"].bundle)
    manifest = yaml.safe_load((copy / "hilum.yaml").read_text())
    manifest["acceptance"][0]["expect"] = [{"segment": 3, "min": 1000, "max": 1001}]
    (copy / "hilum.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    with pytest.raises(ConfigurationError, match="not the build that is pinned"):
        make_models(read_settings(site))
    assert hilum("pin", "it", "--config", site).returncode == 0
    failed = hilum("test", "it", "--config", site)
    assert failed.returncode == 2
    assert "not 1000 to 1001" in failed.stderr

    assert hilum("remove", "it", "--config", site).returncode == 0
    assert (read_settings(site).models, copy.exists()) == ({}, False)
