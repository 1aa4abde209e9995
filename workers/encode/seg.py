"""Labels to a DICOM Segmentation (PS3.3 A.51): BINARY, Explicit VR Little Endian, on the source's own grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from gateway.bundle.output import SegmentSpec
from gateway.domain.roles import SEG, SEG_ALL_FRAMES
from workers.encode.codes import ARTIFICIAL_INTELLIGENCE, concept
from workers.encode.equipment import general_equipment, long_string
from workers.encode.frames import Frame, settle_frames
from workers.encode.side import side_of
from workers.encode.source import Source

SERIES_NUMBER = 9001
_SERIES_AFTER = 20  # series number of the form with all frames minus that of the usual one


def build_seg(source: Source) -> Segmentation:
    """One frame for each segment on each real slice where it is found; every frame names the image it lies on.

    Geometry is taken from the images themselves, slice by slice. Nothing lies on an interpolated slice, since there is no
    image to show it on. Where nothing is found at all every frame is written, empty: an object must have frames.
    """
    return _binary(source, SEG, SERIES_NUMBER, _frames_to_write(source))


def build_seg_all_frames(source: Source) -> Segmentation:
    """The same with a frame for each segment on each real slice, painted or not, for viewers that count frames."""
    every, (rows, columns) = _every_frame(source), source.masks.shape[1:]
    return _binary(source, SEG_ALL_FRAMES, SERIES_NUMBER + _SERIES_AFTER, _bearable(every, rows * columns))


def _binary(source: Source, role: str, series_number: int, frames: Sequence[Frame]) -> Segmentation:
    result = skeleton(source, role, SegmentationTypeValues.BINARY, ExplicitVRLittleEndian, series_number)
    result.PixelData = b"".join(_packed(source, frames))
    if len(result.PixelData) % 2:
        result.PixelData += b"\0"
    result["PixelData"].VR = "OB"
    result.SegmentsOverlap = "YES" if source.masks.overlap else "NO"
    settle_frames(result, source, frames, codes.DCM.Segmentation, role)
    return result


def skeleton(
    source: Source, role: str, kind: SegmentationTypeValues, transfer_syntax: str, series_number: int
) -> Segmentation:
    """Everything of a segmentation but its frames, as highdicom makes it around one of them."""
    first = source.stand_in(source.real_slices[0])
    return Segmentation(
        source_images=[first],
        pixel_array=np.ones((1, first.Rows, first.Columns), np.uint8),
        segmentation_type=kind,
        segment_descriptions=[_description(source, spec) for spec in source.segments],
        series_instance_uid=source.uid(role, "series"),
        series_number=series_number,
        sop_instance_uid=source.uid(role, "instance"),
        instance_number=1,
        omit_empty_frames=True,
        transfer_syntax_uid=transfer_syntax,
        content_label="AI",
        content_description=long_string(f"{source.manifest.title}, AI result, not verified"),
        series_description=long_string(f"AI {source.manifest.title} (not verified)"),
        **general_equipment(source),
    )


def _packed(source: Source, frames: Sequence[Frame]) -> Iterator[bytes]:
    """Bits from the lowest up, frames without padding between (PS3.5 8.1.1): eight frames always end on a byte."""
    for start in range(0, len(frames), 8):
        planes = [_plane(source, frame) for frame in frames[start : start + 8]]
        if planes[0].size % 8 == 0:
            yield from (np.packbits(plane, bitorder="little").tobytes() for plane in planes)
        else:
            yield np.packbits(np.concatenate(planes, axis=None), bitorder="little").tobytes()


def _plane(source: Source, frame: Frame) -> NDArray[np.bool_]:
    return np.zeros(source.masks.shape[1:], bool) if frame.blank else source.masks.on(frame.slice, frame.segment)


def _description(source: Source, spec: SegmentSpec) -> SegmentDescription:
    found = SegmentDescription(
        segment_number=spec.number,
        segment_label=long_string(spec.label),
        segmented_property_category=concept(spec.category),
        segmented_property_type=concept(spec.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(source.identity.name),
            family=ARTIFICIAL_INTELLIGENCE,
            version=long_string(source.identity.version),
            source=long_string(source.identity.manufacturer),
        ),
        tracking_uid=source.tracking_uid(spec.number),
        tracking_id=long_string(f"{source.identity.name} {spec.label}"),
        anatomic_regions=None if spec.anatomic_region is None else [concept(spec.anatomic_region)],
        display_color=CIELabColor(*spec.cielab),
    )
    _state_side(found, source, spec)
    return found


def _state_side(description: SegmentDescription, source: Source, spec: SegmentSpec) -> None:
    """The side qualifies the region, or what the segment itself is where there is none: the left kidney (PS3.3 C.8.20.2)."""
    side = side_of(source.volume, spec.anatomic_region, spec.laterality)
    if side is None:
        return
    if spec.anatomic_region is not None:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [concept(side)]
    else:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept(side)]


def _every_frame(source: Source) -> list[Frame]:
    return [Frame(index, spec.number) for spec in source.segments for index in source.real_slices]


def _frames_to_write(source: Source) -> list[Frame]:
    """By segment, then slice; those that are empty are left out, as far as viewers bear it (`_bearable`)."""
    every = _every_frame(source)
    painted = {frame for frame in every if source.masks.counts[frame.slice, frame.segment]}
    rows, columns = source.masks.shape[1:]
    if not painted:
        count = next((n for n in range(len(every), 0, -1) if _is_told_apart(rows * columns, n)), None)
        return every[:count] if count else _bearable(every, rows * columns)
    spare = [frame for frame in every if frame not in painted]
    counts = range(len(painted), len(every) + 1)
    wanted = [n for n in counts if n * rows * columns % 16 == 0] + [
        n for n in counts if _is_told_apart(rows * columns, n)
    ]
    if wanted:
        painted.update(spare[: wanted[0] - len(painted)])
        return [frame for frame in every if frame in painted]
    return _bearable(every, rows * columns)


def _bearable(frames: list[Frame], pixels: int) -> list[Frame]:
    """With empty frames before them, beside the painted ones of the same slices, until viewers unpack them rightly.

    Whoever takes all frames of a slice together, or the last, sees what is painted.
    """
    if _is_told_apart(pixels, len(frames)):
        return frames
    more = next((n for n in range(1, 33) if _is_told_apart(pixels, len(frames) + n)), 0)
    return [replace(frames[n % len(frames)], blank=True) for n in range(more)] + frames


def _is_told_apart(pixels: int, frames: int) -> bool:
    """Whether OHIF unpacks so many frames of so many pixels as they were packed.

    It tells frames that each begin on a byte of their own, which the standard does not know, from others by the length of the
    pixel data alone. Where both have one length it paints shifted voxels; of a length with a padding byte it shows nothing.
    (Whole objects are what it gets from Orthanc 1.10, which cannot cut a frame out whose rows do not end on a byte.)
    """
    packed, each = -(-pixels * frames // 8), -(-pixels // 8)
    return packed % 2 == 0 and packed != pixels * frames and (frames == 1 or pixels % 8 == 0 or packed != each * frames)
