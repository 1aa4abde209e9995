"""STOW-RS of DICOM JSON metadata with its bulk data in further parts (PS3.18 10.5.1, annex F)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.domain.errors import HilumError, NotDicom
from gateway.receive.header import read_header
from gateway.receive.receiver import StoreRequest
from gateway.web.accept import MediaRange, parse_media_type
from gateway.web.multipart import Event, Malformed, PartBegins, PartData
from gateway.web.settings import MIB
from gateway.web.stow import DICOM_JSON, Upload, part_kind, place_of
from gateway.web.stow_answer import Place

_LIMIT = 1024 * MIB  # bytes of one request: the objects are built in memory

_CHARACTER_SET, _UTF8 = 0x00080005, "ISO_IR 192"

MEDIA_SYNTAX = {  # PS3.18 8.7.3.3: the syntax that is meant where the media type names none
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/x-dicom-rle": "1.2.840.10008.1.2.5",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/x-jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
}

_Bulk = dict[str, list[tuple[MediaRange, bytes]]]  # Content-Location -> its parts


@dataclass
class _Part:
    """One part, whole."""

    headers: dict[str, str]
    content: bytearray = field(default_factory=bytearray)


def store_metadata(upload: Upload, events: Iterable[Event]) -> None:
    """Builds and stores the instances; bulk data is taken from this request only, never fetched from anywhere.

    Raises Malformed where the first part is no list of datasets.
    """
    parts = _parts(events)
    first = next(parts, None)
    if first is None or part_kind(first.headers) != DICOM_JSON:
        raise Malformed(f"the first part must be {DICOM_JSON}")
    items = _datasets(bytes(first.content))
    bulk = _collect(parts)
    for item in items:
        named = _named(item)
        try:
            encoded, syntax = _encode(item, bulk)
            place = place_of(read_header(memoryview(encoded), syntax))
        except HilumError as error:
            upload.refuse(named, error.dimse_status)
            continue
        request = StoreRequest(
            sop_class_uid=place.sop_class_uid, sop_instance_uid=place.sop_instance_uid, transfer_syntax_uid=syntax
        )
        with upload.begin(request) as reception:
            reception.write([memoryview(encoded)])
            upload.settle(reception, place)


def _parts(events: Iterable[Event]) -> Iterator[_Part]:
    """The parts in memory, which is why there is a limit to all of them together."""
    part, total = _Part({}), 0
    for event in events:
        if isinstance(event, PartBegins):
            part = _Part(event.headers)
        elif isinstance(event, PartData):
            total += len(event.data)
            if total > _LIMIT:
                raise Malformed(f"more than {_LIMIT // MIB} MiB as {DICOM_JSON}: send several requests, or files")
            part.content += event.data
        else:
            yield part


def _datasets(text: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("the metadata is not JSON") from None
    items = found if isinstance(found, list) else [found]
    if not items or not all(isinstance(item, dict) for item in items):
        raise Malformed("the metadata is not a list of datasets")
    return items


def _collect(parts: Iterable[_Part]) -> _Bulk:
    bulk: _Bulk = {}
    for part in parts:
        try:
            kind = parse_media_type(part.headers.get("content-type", "application/octet-stream"))
        except ValueError:
            raise Malformed("a part has a Content-Type that is none") from None
        bulk.setdefault(part.headers.get("content-location", ""), []).append((kind, bytes(part.content)))
    return bulk


def _named(item: dict[str, Any]) -> Place:
    return Place(sop_class_uid=_first(item, "00080016"), sop_instance_uid=_first(item, "00080018"))


def _first(item: dict[str, Any], tag: str) -> str:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _encode(item: dict[str, Any], bulk: _Bulk) -> tuple[bytes, str]:
    """The dataset as bytes, and its transfer syntax; raises NotDicom."""
    pixels = item.get("7FE00010")
    uri = pixels.get("BulkDataURI") if isinstance(pixels, dict) else None
    frames = bulk.get(uri, []) if isinstance(uri, str) else []
    syntax = _syntax(frames)
    try:
        dataset = Dataset.from_json({tag: value for tag, value in item.items() if tag > "0002FFFF"}, _resolver(bulk))
        if not _can_be_written(item):
            _in_utf8(dataset)
        if frames and syntax != ExplicitVRLittleEndian:
            dataset.PixelData = encapsulate([data for _, data in frames])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
        buffer = BytesIO()
        stream = DicomIO(buffer)
        stream.is_implicit_VR, stream.is_little_endian = False, True
        write_dataset(stream, dataset)
    # What a client calls DICOM JSON meets the library here, which has no error of its own for it.
    except Exception as error:
        raise NotDicom("the metadata cannot be made into a dataset") from error
    return buffer.getvalue(), syntax


def _can_be_written(item: dict[str, Any]) -> bool:
    """Whether the one character set that the source had, and that JSON repeats (PS3.18 F.2.2 note 3), has every character.

    Sets with escapes, and items with sets of their own, are not looked into: UTF-8 has every character as well.
    """
    text = json.dumps(item, ensure_ascii=False)
    if text.isascii():
        return True
    declared = _first(item, f"{_CHARACTER_SET:08X}")
    codec = python_encoding.get(declared, "") if declared else ""
    if not codec or codec.startswith("iso2022") or text.count(f'"{_CHARACTER_SET:08X}"') > 1:
        return False
    try:
        text.encode(codec)
    except (UnicodeError, LookupError):
        return False
    return len(item[f"{_CHARACTER_SET:08X}"]["Value"]) == 1


def _in_utf8(dataset: Dataset) -> None:
    """JSON holds characters, not their codes: written in another set, or in none, some of them would become question marks."""

    def declare(part: Dataset, element: DataElement) -> None:
        if element.tag == _CHARACTER_SET:
            part.SpecificCharacterSet = _UTF8

    dataset.SpecificCharacterSet = _UTF8
    dataset.walk(declare)


def _resolver(bulk: _Bulk) -> Callable[[str, str, str], bytes]:
    def resolve(_tag: str, _vr: str, uri: str) -> bytes:
        if uri not in bulk:
            raise NotDicom("bulk data is named that is not in the request")
        data = b"".join(content for _, content in bulk[uri])
        return data + b"\0" * (len(data) % 2)

    return resolve


def _syntax(frames: list[tuple[MediaRange, bytes]]) -> str:
    if not frames:
        return str(ExplicitVRLittleEndian)
    kind = frames[0][0]
    return kind.transfer_syntax or MEDIA_SYNTAX.get(kind.kind, str(ExplicitVRLittleEndian))
