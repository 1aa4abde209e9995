"""A bundle's manifest: what is good, what is refused with its key, and the digest that names a build."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.bundle.files import builtin_bundles, bundle_digest, check_weights, read_manifest, resolve_bundle
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid

CODE = {"value": "12738006", "scheme": "SCT", "meaning": "Brain"}
GOOD: dict[str, Any] = {
    "manifest": 1,
    "name": "brain",
    "version": "1.0",
    "title": "Brain",
    "intended_use": "Tests",
    "license": "Apache-2.0",
    "device": {"manufacturer": "Hilum", "model_name": "brain", "uid": "2.25.1"},
    "weights": {"file": "models/model.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()},
    "input": {"modality": ["MR"], "geometry": {"slices": {"min": 10, "max": 500}, "spacing": {"min": 0.5, "max": 6}}},
    "output": {
        "kind": "segmentation",
        "segments": [{"number": 1, "label": "Brain", "category": CODE, "type": CODE, "cielab": [60, 10, -20]}],
        "measurements": [
            {"kind": "volume", "segment": 1, "name": CODE, "unit": {"value": "mL", "scheme": "UCUM", "meaning": "milliliter"},
             "plausible": {"min": 100, "max": 3000}}
        ],
    },
    "resources": {"memory_mib": 1024, "timeout_s": 60},
}  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A complete bundle."""
    (tmp_path / "models").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "models" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "configs" / "inference.json").write_text("{}")
    (tmp_path / "hilum.yaml").write_text(yaml.safe_dump(GOOD))
    return tmp_path


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good manifest with one value changed; the value `...` takes the key away."""
    text = yaml.safe_load(yaml.safe_dump(GOOD))
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node = text
    for part in way:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return text  # type: ignore[no-any-return]


def test_a_good_manifest(bundle: Path) -> None:
    """Everything it says is read."""
    manifest = read_manifest(bundle)
    assert manifest == Manifest.model_validate(GOOD)
    assert manifest.output.segments[0].type.code().meaning == "Brain"
    assert manifest.input.geometry.gaps == "refuse"
    assert manifest.input.geometry.spacing.holds(6.0)
    assert not manifest.input.geometry.spacing.holds(6.1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("manifest", 2),
        ("name", "Brain Mask"),
        ("version", 1.0),
        ("version", ...),
        ("colour", "red"),
        ("device.uid", "1.02"),
        ("device.uid", "3.1"),
        ("weights.file", "../../etc/passwd"),
        ("weights.file", "/etc/passwd"),
        ("weights.file", ""),
        ("weights.sha256", "abc"),
        ("input.modality", []),
        ("input.geometry.slices", {"min": 5, "max": 4}),
        ("input.geometry.spacing", {"min": 2, "max": 1}),
        ("input.geometry.spacing", {"min": float("nan"), "max": 1}),
        ("input.geometry.spacing", {"min": 0, "max": float("inf")}),
        ("input.geometry.gaps", "fill"),
        ("output.kind", "classification"),
        ("output.segments", []),
        ("output.segments.0.number", 2),
        ("output.segments.0.cielab", [101, 0, 0]),
        ("output.segments.0.cielab", [50, 0, 128]),
        ("output.segments.0.label", ""),
        ("output.segments.0.type.meaning", "x" * 65),
        ("output.measurements.0.segment", 2),
        ("output.measurements.0.unit.value", "l"),
        ("output.measurements.0.unit.scheme", "SCT"),
        ("resources.timeout_s", 0),
        ("resources.memory_mib", 1),
    ],
)
def test_each_mistake_names_its_key(bundle: Path, path: str, value: Any) -> None:
    """A wrong manifest is refused with the bundle, the file and the key that is wrong."""
    (bundle / "hilum.yaml").write_text(yaml.safe_dump(changed(path, value)))
    with pytest.raises(BundleInvalid) as raised:
        read_manifest(bundle)
    assert raised.value.message.startswith(f"{bundle.name}/hilum.yaml: {path.split('.')[0]}")
    assert raised.value.exit_status == 2


@pytest.mark.parametrize(
    "content",
    [b"[1", b"\xff\xfe", b"- a\n", b"", b"a: 2026-13-45\n", b"[" * 3000, b"!!python/object/apply:os.getcwd []"],
)
def test_what_is_no_manifest(bundle: Path, content: bytes) -> None:
    """Other text and no text are one sentence."""
    (bundle / "hilum.yaml").write_bytes(content)
    with pytest.raises(BundleInvalid, match=r"hilum\.yaml"):
        read_manifest(bundle)


def test_no_manifest(tmp_path: Path) -> None:
    """A directory without one is no bundle."""
    with pytest.raises(BundleInvalid, match=r"is no Hilum bundle: hilum\.yaml is missing"):
        read_manifest(tmp_path)


def test_the_shipped_bundles_are_good() -> None:
    """Every bundle that ships with the product has a good manifest and is found by its name."""
    found = builtin_bundles()
    assert found
    for path in found:
        assert read_manifest(path).name == path.name
        assert resolve_bundle(f"builtin:{path.name}", Path("/")) == path
        assert resolve_bundle(f"builtin:{path.name.replace('_', '-')}", Path("/")) == path


@pytest.mark.parametrize("spec", ["builtin:nothing", "builtin:../brain_mask", "builtin:", "nowhere", "/no/such/bundle"])
def test_bundles_that_are_not_there(tmp_path: Path, spec: str) -> None:
    """A name or directory that is none is one sentence."""
    with pytest.raises(BundleInvalid, match="no bundle"):
        resolve_bundle(spec, tmp_path)


def test_a_directory_relative_to_the_base(bundle: Path) -> None:
    """A path is taken from the base, a whole one as it is."""
    assert resolve_bundle(bundle.name, bundle.parent) == bundle.resolve()
    assert resolve_bundle(str(bundle), Path("/")) == bundle.resolve()


# --- the digest ------------------------------------------------------------------------------------------------------


CHANGES: dict[str, Callable[[Path], object]] = {
    "a byte of the weights": lambda root: (root / "models" / "model.safetensors").write_bytes(b"weightz"),
    "the manifest": lambda root: (root / "hilum.yaml").write_text(yaml.safe_dump(changed("title", "Other"))),
    "a new file": lambda root: (root / "scripts.py").write_text(""),
    "a file renamed": lambda root: (root / "configs" / "inference.json").rename(root / "configs" / "other.json"),
    "a file moved": lambda root: (root / "configs" / "inference.json").rename(root / "inference.json"),
    "a file gone": lambda root: (root / "configs" / "inference.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_another_build_has_another_digest(bundle: Path, change: Callable[[Path], object]) -> None:
    """Everything that decides what a model computes is in its digest."""
    before = bundle_digest(bundle)
    change(bundle)
    assert bundle_digest(bundle) != before


def _touch(root: Path) -> None:
    for path in root.rglob("*"):
        os.utime(path, (1, 1))


def _cached(root: Path) -> None:
    (root / "scripts" / "__pycache__").mkdir(parents=True)
    (root / "scripts" / "__pycache__" / "x.pyc").write_bytes(b"x")


def _documented(root: Path) -> None:
    (root / "docs").mkdir()
    (root / "docs" / "README.md").write_text("x")


@pytest.mark.parametrize("change", [_touch, _cached, _documented, lambda root: (root / ".gitignore").write_text("x")])
def test_the_same_build_has_the_same_digest(bundle: Path, change: Callable[[Path], object]) -> None:
    """Times, caches, documentation and hidden files do not make another model: results would get new UIDs."""
    before = bundle_digest(bundle)
    change(bundle)
    assert bundle_digest(bundle) == before


def test_contents_cannot_be_shifted_between_files(tmp_path: Path) -> None:
    """Two bundles with the same bytes, divided otherwise, are two."""
    digests = set()
    for number, files in enumerate(
        [{"a": b"xy", "b": b""}, {"a": b"x", "b": b"y"}, {"a": b"xb\0\0y"}, {"a": b"xb\x001\0y"}]
    ):
        root = tmp_path / str(number)
        root.mkdir()
        for name, content in files.items():
            (root / name).write_bytes(content)
        digests.add(bundle_digest(root))
    assert len(digests) == 4


def test_weights(bundle: Path) -> None:
    """Weights that are missing, or are not those the manifest pins, are one sentence."""
    manifest = read_manifest(bundle)
    check_weights(bundle, manifest)
    (bundle / "models" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(BundleInvalid, match=r"have SHA-256 d9298a10d1b0\.\.\., its manifest pins"):
        check_weights(bundle, manifest)
    (bundle / "models" / "model.safetensors").unlink()
    with pytest.raises(BundleInvalid, match="are missing: run `hilum models prepare`"):
        check_weights(bundle, manifest)


def test_one_series_or_several() -> None:
    """The first of several is the one that results lie on; both ways at once, one of several, or two of a name are refused."""
    one = {"name": "t1", "modality": ["MR"]}
    several = [one, one | {"name": "t2", "missing": "zeros"}]
    alone = {key: value for key, value in GOOD.items() if key != "input"}
    manifest = Manifest.model_validate(alone | {"inputs": several})
    assert (manifest.input, [item.name for item in manifest.series]) == (manifest.inputs[0], ["t1", "t2"])
    assert Manifest.model_validate(manifest.model_dump(mode="json")) == manifest
    assert Manifest.model_validate(GOOD).series == (Manifest.model_validate(GOOD).input,)
    for wrong in (
        GOOD | {"inputs": several},
        alone | {"inputs": several[:1]},
        alone | {"inputs": []},
        alone | {"inputs": "t1"},
        alone | {"inputs": [one, one]},
        alone | {"inputs": several[::-1]},
        alone,
    ):
        with pytest.raises(ValueError):
            Manifest.model_validate(wrong)
