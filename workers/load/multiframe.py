"""An enhanced multi-frame image (Enhanced CT, MR, PET; legacy converted) to one single-frame dataset for each frame.

What stands in functional groups (PS3.3 C.7.6.16) moves to where single-frame images have it, so that nothing after this has
to know of them. Frames are not decoded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag

from gateway.domain.errors import InputRefused
from workers.load.part10 import BROKEN

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_LEFT_OUT = {Tag(keyword) for keyword in (*_GROUPS, "PixelData", "NumberOfFrames", "ExtendedOffsetTable",
                                          "ExtendedOffsetTableLengths", "InstanceNumber")}  # fmt: skip
_MOVED = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth"),
    "FrameContentSequence": ("TemporalPositionIndex",),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "CardiacSynchronizationSequence": ("NominalCardiacTriggerDelayTime",),
}


def is_multiframe(dataset: Dataset) -> bool:
    """Whether an image has several frames, or could have."""
    try:
        return "SharedFunctionalGroupsSequence" in dataset or int(dataset.get("NumberOfFrames") or 1) > 1
    except BROKEN:
        return True


def frames(dataset: Dataset) -> list[Dataset]:
    """Each frame as an image of its own, with the instance's UID and the frame's number as Instance Number.

    Raises InputRefused: `multiframe` for images without functional groups, `undecodable` for broken ones.
    """
    if any(keyword not in dataset for keyword in _GROUPS):
        raise InputRefused(
            "a multi-frame image has no functional groups: nothing says where its frames lie", code="multiframe"
        )
    try:
        return _frames(dataset)
    except InputRefused:
        raise
    except BROKEN as error:
        raise InputRefused(
            f"a multi-frame image cannot be taken apart, {type(error).__name__}", code="undecodable"
        ) from None


def _frames(dataset: Dataset) -> list[Dataset]:
    shared, per_frame = dataset.SharedFunctionalGroupsSequence[0], list(dataset.PerFrameFunctionalGroupsSequence)
    count = int(dataset.NumberOfFrames)
    if len(per_frame) != count or count < 1:
        raise InputRefused(
            f"a multi-frame image says it has {count} frames and describes {len(per_frame)}", code="undecodable"
        )
    common = {tag: dataset.get_item(tag) for tag in dataset.keys() if tag not in _LEFT_OUT}  # noqa: SIM118 - tags
    implicit, little = dataset.original_encoding
    found = []
    for number, (groups, pixels) in enumerate(zip(per_frame, _pixels(dataset, count), strict=True), start=1):
        frame = Dataset(dict(common))
        frame.file_meta = dataset.file_meta
        frame.set_original_encoding(implicit, little, dataset.original_character_set)
        frame.InstanceNumber = number
        for sequence, keywords in _MOVED.items():
            _move(frame, _item(groups, shared, sequence), keywords)
        _settle_side(frame, _item(groups, shared, "FrameAnatomySequence"))
        frame.PixelData = pixels
        frame["PixelData"].VR = "OB" if dataset.file_meta.TransferSyntaxUID.is_encapsulated else "OW"
        found.append(frame)
    return found


def _item(groups: Dataset, shared: Dataset, sequence: str) -> Dataset | None:
    items: Any = groups.get(sequence) or shared.get(sequence)
    return items[0] if items else None


def _move(frame: Dataset, item: Dataset | None, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if item is not None and keyword in item:
            frame[keyword] = item[keyword]


def _settle_side(frame: Dataset, anatomy: Dataset | None) -> None:
    """The side of the body is Frame Laterality here (PS3.3 C.7.6.16.2.8), Image Laterality in single-frame images."""
    if anatomy is not None and anatomy.get("FrameLaterality") in ("R", "L", "B"):
        frame.ImageLaterality = anatomy.FrameLaterality


def _pixels(dataset: Dataset, count: int) -> Iterator[bytes]:
    data = dataset.PixelData
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return (encapsulate([frame]) for frame in generate_frames(data, number_of_frames=count))
    size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * (int(dataset.BitsAllocated) // 8)
    if len(data) < size * count:
        raise InputRefused("a multi-frame image has less pixel data than its frames need", code="undecodable")
    return (data[start : start + size] for start in range(0, size * count, size))
