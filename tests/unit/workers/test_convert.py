"""The conversion of brain_mask's weights from a frozen graph."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from gateway.bundle.files import read_manifest, resolve_bundle
from gateway.domain.errors import BundleInvalid
from workers.bundles.brain_mask.convert import prepare
from workers.bundles.brain_mask.graph import float_constants

BUNDLE = resolve_bundle("builtin:brain_mask", Path.cwd())


def field(number: int, content: bytes) -> bytes:
    """One length-delimited field of a protocol buffer, for contents below 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def constant(name: bytes, tensor: bytes) -> bytes:
    """A GraphDef with one constant node."""
    attribute = field(5, field(1, b"value") + field(2, field(8, tensor)))
    return field(1, field(1, name) + field(2, b"Const") + attribute)


def test_constants_are_read_in_both_encodings() -> None:
    """Raw content and repeated floats, with their shape."""
    values = np.array([[1, 2, 3], [4, 5, 6]], dtype="<f4")
    shape = field(2, field(2, b"\x08\x02") + field(2, b"\x08\x03"))
    raw = float_constants(constant(b"a", b"\x08\x01" + shape + field(4, values.tobytes())))
    assert np.array_equal(raw["a"], values)
    listed = float_constants(constant(b"b", b"\x08\x01" + field(2, field(2, b"\x08\x06")) + field(5, values.tobytes())))
    assert np.array_equal(listed["b"], values.ravel())


def test_a_graph_that_ends_too_early_is_an_error() -> None:
    """Cut anywhere inside its only node, it is refused."""
    graph = constant(b"a", b"\x08\x01" + field(4, b"\0" * 8))
    with pytest.raises(ValueError, match="too early"):
        float_constants(graph[:-3])


def test_the_weights_come_out_the_same_every_time(tmp_path: Path) -> None:
    """Conversion into a copy of the bundle gives the bytes that the manifest pins, and nothing else is left there."""
    copy = tmp_path / "brain_mask"
    copy.mkdir()
    shutil.copy(BUNDLE / "hilum.yaml", copy)
    path = prepare(copy)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == read_manifest(copy).weights.sha256
    assert [item.name for item in path.parent.iterdir()] == ["model.safetensors"]


def test_weights_that_are_not_the_pinned_ones_are_not_written(tmp_path: Path) -> None:
    """A manifest that pins something else stops the conversion before a file is there."""
    copy = tmp_path / "brain_mask"
    copy.mkdir()
    text = (BUNDLE / "hilum.yaml").read_text().replace("sha256: 8558", "sha256: 0000")
    (copy / "hilum.yaml").write_text(text)
    with pytest.raises(BundleInvalid, match="pins"):
        prepare(copy)
    assert not (copy / "models").exists()
