"""Hostile configurations are named with their place, harmless ones pass; nothing of either is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.bundle.files import builtin_bundles
from gateway.domain.errors import BundleInvalid
from tests.support.bundles import write_bundle
from workers.infer.model import open_model
from workers.infer.scan import check, scan


def with_config(tmp_path: Path, value: Any, key: str = "extra") -> Path:
    """A bundle whose configuration has one more key."""
    bundle = write_bundle(tmp_path / "bundle")
    file = bundle / "configs/inference.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    return bundle


@pytest.mark.parametrize(
    "expression",
    [
        "$__import__('os').system('touch {marker}')",
        "$import os; os.system('id')",
        "$import os as path",
        "$from os import system",
        "$import subprocess",
        "$from torch import hub",
        "$import torch; torch.load('x')",
        "$os.path.os.system('id')",
        "$os.environ.copy()",
        "$monai.utils.optional_import('os')[0]",
        "$monai.bundle.run()",
        "$().__class__.__mro__[1].__subclasses__()",
        "$getattr(torch, 'load')",
        "$eval('1')",
        "$open('/etc/passwd').read()",
        "$'{0.__class__}'.format(1)",
        "$exec(",
        "$@network_def.__init__.__globals__",
        "  $__import__('os')",
        "$torch.serialization.os.execv('/bin/id', ['id'])",
        "$numpy.f2py.subprocess.run(['id'])",
        "$np.load('x', allow_pickle=True)",
        "$torch.storage._load_from_bytes(b'x')",
    ],
)
@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: {"a": [{"b": text}]}], ids=["plain", "nested"])
def test_an_expression_that_reaches_out_refuses_the_bundle(tmp_path: Path, expression: str, wrap: Any) -> None:
    """Whatever is around it; and it was not run."""
    marker = tmp_path / "marker"
    bundle = with_config(tmp_path, wrap(expression.format(marker=marker) if "{marker}" in expression else expression))
    with pytest.raises(BundleInvalid, match=r"refused: configs/inference\.json: extra"):
        open_model(bundle)
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    ["subprocess.run", "os.system", "builtins.eval", "torch.load", "torch.hub.load", "monai.bundle.run", "pty.spawn",
     "scripts.network.__init__", "a b", "@hidden", "$'subprocess' + '.run'", "torch.serialization.load",
     "torch.serialization.os.execv", "numpy.f2py.subprocess.run", "$torch.load",
     "importlib.import_module", "monai.utils.module.load_submodules"],
)  # fmt: skip
def test_a_target_outside_the_list_refuses_the_bundle(tmp_path: Path, target: str) -> None:
    """`_target_` imports and calls what it names."""
    with pytest.raises(BundleInvalid, match=r"may call|is no name"):
        check(with_config(tmp_path, {"_target_": target, "args": ["id"]}))


@pytest.mark.parametrize(
    "macro", ["%docs/evil.json::x", "%../evil.json::x", "%/tmp/evil.yaml::x", "%configs/more.json::x"]
)
def test_a_macro_of_another_file_refuses_the_bundle(tmp_path: Path, macro: str) -> None:
    """It would be taken from where nobody has looked."""
    with pytest.raises(BundleInvalid, match="not scanned"):
        check(with_config(tmp_path, {"x": macro}))


def test_a_folder_of_the_bundle_lends_its_name_to_nothing(tmp_path: Path) -> None:
    """A bundle with a folder `subprocess` may still not call the library of that name."""
    bundle = with_config(tmp_path, {"_target_": "subprocess.run"})
    (bundle / "subprocess").mkdir()
    with pytest.raises(BundleInvalid, match="may call"):
        check(bundle)


@pytest.mark.parametrize(
    "value",
    [
        "$import glob",
        "$import numpy as np",
        "$from safetensors.torch import load_file",
        "$sorted(glob.glob(os.path.join(@bundle_root, '*.nii.gz')))",
        "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "$lambda image: image > 0.05 * image.max()",
        "$[{'image': path} for path in @images]",
        "$@network_def.to(@device)",
        "$monai.utils.set_determinism(seed=0)",
        "%network_def",
        "@preprocessing#transforms#0",
        {"_target_": "monai.networks.nets.UNet"},
        {"_target_": "scripts.network.Network"},
        {"_target_": "torch.nn.Sigmoid"},
        "costs $5 and up to 10 %",
    ],
)
def test_what_bundles_ordinarily_say_is_let_through(tmp_path: Path, value: Any) -> None:
    """Expressions and targets out of the model zoo's bundles."""
    check(with_config(tmp_path, value))


def test_shipped_bundles_pass() -> None:
    """All of them."""
    for bundle in builtin_bundles():
        check(bundle)


def test_what_scripts_import_is_reported(tmp_path: Path) -> None:
    """They are programs anyway: a person should know, the sandbox holds."""
    found = {str(finding) for finding in scan(write_bundle(tmp_path / "bundle")) if not finding.refuse}
    assert any("scripts/network.py" in finding and "imports subprocess" in finding for finding in found)


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Not passed over."""
    bundle = write_bundle(tmp_path / "bundle")
    (bundle / "configs/other.yaml").write_text("a: [")
    with pytest.raises(BundleInvalid, match=r"cannot be opened: configs/other\.yaml"):
        check(bundle)
