"""Frames of an object that lies on the images: where each is, on which image, and of what.

highdicom builds the object around one frame; all frames' descriptions are put in here, encoded at once. A dataset for
each of ten thousand frames would take longer than the model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag, Tag

from workers.encode.codes import concept_item
from workers.encode.source import Source

PER_FRAME = Tag("PerFrameFunctionalGroupsSequence")
_PER_FRAME_ONLY = (
    "DerivationImageSequence", "FrameContentSequence", "PlanePositionSequence", "SegmentIdentificationSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What one frame shows."""

    slice: int
    segment: int = 0  # 0 where frames are not of one segment each
    blank: bool = False  # nothing of it is drawn here: another frame of the same slice and segment has it


def settle_frames(result: Dataset, source: Source, frames: Sequence[Frame], derivation: Code, seed: str) -> None:
    """Describes frames in the order of the pixel data, and what they have in common.

    There is no Source Image Sequence at the top: with it and frames that miss theirs, OHIF paints frame k on the list's
    item k. All our frames have their own; the list could only do harm.
    """
    result.NumberOfFrames = len(frames)
    for keyword in ("SourceImageSequence", "DimensionOrganizationType"):
        result.pop(keyword, None)
    dimensions = source.uid(seed, "dimensions")  # highdicom draws one at random
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    for keyword in _PER_FRAME_ONLY:
        result.SharedFunctionalGroupsSequence[0].pop(keyword, None)
    if source.volume.places:  # there is no one distance between slices
        result.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].pop("SpacingBetweenSlices", None)
    slices = sorted({frame.slice for frame in frames})
    result.ReferencedSeriesSequence = [_referenced_series(source, slices)]
    value = _per_frame(source, frames, slices, derivation)
    result[PER_FRAME] = RawDataElement(PER_FRAME, "SQ", len(value), value, 0, False, True, True)


def shallow(dataset: Dataset) -> list[BaseTag]:
    """The tags that can hold somebody's name: all but the frames' descriptions."""
    return [tag for tag in dataset.keys() if tag != PER_FRAME]  # noqa: SIM118 - tags, not elements


def _per_frame(source: Source, frames: Sequence[Frame], slices: Sequence[int], derivation: Code) -> bytes:
    purpose = _encode(concept_item(codes.DCM.SourceImageForImageProcessingOperation))
    code = _encode(concept_item(derivation))
    sources = {index: _derivation(source, index, purpose, code) for index in slices}
    places = {index: _position(source, index) for index in slices}
    rank = {index: number for number, index in enumerate(slices, start=1)}
    parts = []
    for frame in frames:
        values = (frame.segment, rank[frame.slice]) if frame.segment else (rank[frame.slice],)
        content = _sequence(0x0020, 0x9111, _element(0x0020, 0x9157, b"UL", struct.pack(f"<{len(values)}I", *values)))
        item = sources[frame.slice] + content + places[frame.slice]
        if frame.segment:
            number = _element(0x0062, 0x000B, b"US", struct.pack("<H", frame.segment))
            item += _sequence(0x0062, 0x000A, number)
        parts.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item)
    return b"".join(parts)


def _derivation(source: Source, index: int, purpose: bytes, code: bytes) -> bytes:
    """Derivation Image Sequence (PS3.3 C.7.6.16.2.6): the one image that a frame is of."""
    image, number = source.reference_of(index), source.volume.frame_number(index)
    target = _uid(0x0008, 0x1150, image.SOPClassUID) + _uid(0x0008, 0x1155, image.SOPInstanceUID)
    if number is not None:
        target += _element(0x0008, 0x1160, b"IS", _even(str(number).encode(), b" "))
    target += _element(0x0028, 0x135A, b"CS", b"YES ") + _sequence(0x0040, 0xA170, purpose)
    return _sequence(0x0008, 0x9124, _sequence(0x0008, 0x2112, target) + _sequence(0x0008, 0x9215, code))


def _position(source: Source, index: int) -> bytes:
    """Plane Position Sequence (PS3.3 C.7.6.16.2.3)."""
    return _sequence(0x0020, 0x9113, _decimals(0x0020, 0x0032, source.reference_of(index).ImagePositionPatient))


def _referenced_series(source: Source, slices: Sequence[int]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = source.references[0].SeriesInstanceUID
    items = {}
    for index in slices:
        image = source.reference_of(index)
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        items[str(image.SOPInstanceUID)] = item
    series.ReferencedInstanceSequence = list(items.values())
    return series


def _encode(dataset: Dataset) -> bytes:
    """Explicit VR Little Endian, without group 0002."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def _element(group: int, element: int, representation: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, representation, len(value)) + value


def _uid(group: int, element: int, value: str) -> bytes:
    return _element(group, element, b"UI", _even(value.encode(), b"\0"))


def _decimals(group: int, element: int, values: Iterable[object]) -> bytes:
    return _element(group, element, b"DS", _even("\\".join(map(str, values)).encode(), b" "))


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)


def _sequence(group: int, element: int, item: bytes) -> bytes:
    """A sequence of one item (PS3.5 7.5), lengths given."""
    head = struct.pack("<HHI", 0xFFFE, 0xE000, len(item))
    return struct.pack("<HH2sHI", group, element, b"SQ", 0, len(head) + len(item)) + head + item
