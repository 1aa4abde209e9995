"""A dataset as DICOM JSON (PS3.18 annex F): large binary values are named by URI, and fetched by it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from gateway.web.opened import Opened

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW"})
_WIDTH = {"OD": 8, "OV": 8, "OF": 4, "OL": 4, "OW": 2}  # bytes of one number, which are turned where big endian
_INLINE_LIMIT = 4096  # bytes
_DEEPEST = 24  # levels of sequences

Json = dict[str, Any]
Path = tuple[str, ...]  # tags and item numbers down to an element


def to_json(one: Opened, instance_url: str) -> Json:
    """All attributes of an instance; `instance_url` is where it is retrieved from."""
    found = _dataset(one.dataset, (), lambda path: f"{instance_url}/bulkdata/{'/'.join(path)}")
    found["00083002"] = {"vr": "UI", "Value": [one.syntax]}
    if one.pixels is not None:
        vr = {0x7FE00008: "OF", 0x7FE00009: "OD"}.get(one.pixels.tag, "OW")
        found[f"{one.pixels.tag:08X}"] = {"vr": vr, "BulkDataURI": f"{instance_url}/bulkdata/{one.pixels.tag:08X}"}
    return dict(sorted(found.items()))


def find_bulk(dataset: Dataset, path: Path) -> tuple[str, bytes] | None:
    """VR and value of the binary element that a URI names; None where there is none."""
    here: Any = dataset
    try:
        for tag, item in zip(path[:-1:2], path[1:-1:2], strict=True):
            here = here[int(tag, 16)].value[int(item)]
        element = here[int(path[-1], 16)]
    except (KeyError, ValueError, IndexError, TypeError):
        return None
    return (element.VR, element.value) if isinstance(element.value, bytes) else None


def little_endian(vr: str, value: bytes, syntax: str) -> bytes:
    """The value as bulk data is given out: in little endian, whatever the file has."""
    width = _WIDTH.get(vr, 1) if syntax == ExplicitVRBigEndian else 1
    return value if width == 1 else swap(value, width)


def swap(value: bytes, width: int) -> bytes:
    """Every number with its bytes the other way round."""
    whole = len(value) - len(value) % width
    turned = bytearray(value)
    for offset in range(width):
        turned[offset:whole:width] = value[width - 1 - offset : whole : width]
    return bytes(turned)


def _dataset(dataset: Dataset, path: Path, uri: Callable[[Path], str]) -> Json:
    return {f"{tag:08X}": value for tag, value in _elements(dataset, path, uri)}


def _elements(dataset: Dataset, path: Path, uri: Callable[[Path], str]) -> Iterator[tuple[int, Json]]:
    for tag in sorted(dataset.keys()):
        if tag.element == 0 or tag.group <= 0x0006 or len(path) > 2 * _DEEPEST:
            continue  # group lengths, and groups that belong to no dataset
        try:
            yield int(tag), _element(dataset[tag], (*path, f"{tag:08X}"), uri)
        # One value that is broken (a letter in a DS, say) must not hide all the others.
        except Exception:  # noqa: BLE001, S112
            continue


def _element(element: DataElement, path: Path, uri: Callable[[Path], str]) -> Json:
    if element.VR == "SQ":
        items = [_dataset(item, (*path, str(number)), uri) for number, item in enumerate(element.value)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in _BINARY:
        return _binary(element, path, uri)
    found = element.to_json_dict(None, 0)
    if "Value" in found:
        found["Value"] = [None if isinstance(v, float) and not math.isfinite(v) else v for v in found["Value"]]
    return found


def _binary(element: DataElement, path: Path, uri: Callable[[Path], str]) -> Json:
    vr = "OW" if element.VR == "OB or OW" else element.VR
    if element.is_empty:
        return {"vr": vr}
    if len(element.value) > _INLINE_LIMIT:
        return {"vr": vr, "BulkDataURI": uri(path)}
    return {"vr": vr, "InlineBinary": base64.b64encode(element.value).decode()}
