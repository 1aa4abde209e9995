"""Are the segments the manifest's, and the frames the model's mask, voxel for voxel?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from gateway.bundle.output import SegmentSpec
from gateway.bundle.part import CodeValue
from gateway.domain.errors import GateRefused
from workers.verify.evidence import Evidence, Result, code_of
from workers.verify.geometry import frames, source_slice

_SIDES = {"L": "7771000", "R": "24028007", "B": "51440002"}  # SCT


def check_field_of_view(evidence: Evidence) -> None:
    """Nothing was found where nothing was measured."""
    outside = evidence.volume.outside
    if outside is not None and (np.asarray(evidence.labels)[..., outside] != 0).any():
        raise GateRefused("labels: something was found in the images' padding", code="padding")


def check_form(result: Result, _: Evidence) -> None:
    """BINARY and bit-packed: the one form that every viewer shows."""
    found = (
        result.dataset.get("SegmentationType"),
        result.dataset.get("BitsAllocated"),
        result.dataset.get("Modality"),
    )
    if found != ("BINARY", 1, "SEG"):
        raise result.refuse("form", "it is not a BINARY segmentation")


def check_segments(result: Result, evidence: Evidence) -> None:
    """Numbered 1..N, coded, coloured, by a named algorithm, with tracking ids (PS3.3 C.8.20.4)."""
    items = list(result.dataset.get("SegmentSequence") or ())
    specs = evidence.manifest.output.segments
    if [item.get("SegmentNumber") for item in items] != [spec.number for spec in specs]:
        raise result.refuse("segment_number", "segments are not those of the manifest, numbered 1..N")
    for item, spec in zip(items, specs, strict=True):
        _check_segment(result, item, spec)
        _check_site(result, item, spec, evidence)
        _check_segment_algorithm(result, item)
    if len({item.TrackingUID for item in items}) != len(items):
        raise result.refuse("segment_tracking", "two segments have the same tracking UID")


def _check_segment(result: Result, item: Dataset, spec: SegmentSpec) -> None:
    for keyword, code in (
        ("SegmentedPropertyCategoryCodeSequence", spec.category),
        ("SegmentedPropertyTypeCodeSequence", spec.type),
    ):
        if code_of(item, keyword) != _code(code):
            raise result.refuse("segment_code", f"segment {spec.number} has not the manifest's {keyword}")
    if not item.get("SegmentLabel"):
        raise result.refuse("segment_label", f"segment {spec.number} has no label")
    colour = list(item.get("RecommendedDisplayCIELabValue") or ())
    if len(colour) != 3 or not np.allclose(colour, _colour(spec), atol=1):
        raise result.refuse("segment_colour", f"segment {spec.number} has not the manifest's colour")
    if not (item.get("TrackingID") and item.get("TrackingUID")):
        raise result.refuse("segment_tracking", f"segment {spec.number} has no tracking id")


def _check_site(result: Result, item: Dataset, spec: SegmentSpec, evidence: Evidence) -> None:
    """Region and side: the manifest's, or the side that the images show."""
    header = evidence.volume.first
    shown = _SIDES.get(str(header.get("ImageLaterality") or header.get("Laterality") or ""), "")
    region, modifier = spec.anatomic_region, ("AnatomicRegionSequence", "AnatomicRegionModifierSequence")
    if region is None:
        shown, modifier = "", ("SegmentedPropertyTypeCodeSequence", "SegmentedPropertyTypeModifierCodeSequence")
    side = spec.laterality.value if spec.laterality is not None else shown
    found = [code_of(one, modifier[1])[0] for one in item.get(modifier[0]) or ()]
    if code_of(item, "AnatomicRegionSequence") != (("", "") if region is None else _code(region)):
        raise result.refuse("segment_code", f"segment {spec.number} has not the manifest's region")
    if (found or [""]) != [side]:
        raise result.refuse("segment_code", f"segment {spec.number} is not on the side that manifest or images say")


def _check_segment_algorithm(result: Result, item: Dataset) -> None:
    versions = [a.get("AlgorithmVersion") for a in item.get("SegmentationAlgorithmIdentificationSequence") or ()]
    named = item.get("SegmentAlgorithmType") == "AUTOMATIC" and item.get("SegmentAlgorithmName")
    if not (named and versions and all(versions)):
        raise result.refuse(
            "segment_algorithm", f"segment {item.SegmentNumber} does not name its algorithm and version"
        )


def check_pixels(result: Result, evidence: Evidence) -> None:
    """Decoded frames equal the labels on the slices they name, and every labelled slice has its frame.

    Slices that were interpolated over a gap have no image, so no frame is asked for there. Empty frames may go before the others
    where the length of the pixel data would mislead viewers (`workers.encode.seg`).
    """
    seen: set[tuple[int, int]] = set()
    for number, (frame, pixels) in enumerate(zip(frames(result), decode(result), strict=True), start=1):
        index = source_slice(result, evidence, frame, number)
        segment = _segment_of(result, frame, number)
        if not seen and not pixels.any():
            continue
        if (index, segment) in seen:
            raise result.refuse("pixels", f"frame {number} repeats a segment on a slice")
        if not np.array_equal(pixels, evidence.masks.on(index, segment)):
            raise result.refuse("pixels", f"frame {number} is not the mask on the slice it names")
        seen.add((index, segment))
    for index in evidence.slice_of.values():
        for segment in evidence.masks.present(index):
            if (index, segment) not in seen:
                raise result.refuse("pixels", f"segment {segment} is missing on slice {index}")


def check_overlap(result: Result, evidence: Evidence) -> None:
    """Segments Overlap says what is so: a viewer that trusts it drops voxels."""
    if result.dataset.get("SegmentsOverlap") != ("YES" if evidence.masks.overlap else "NO"):
        raise result.refuse("overlap", "Segments Overlap does not say whether they do")


def check_label_map(result: Result, evidence: Evidence) -> None:
    """Each frame of a label map equals the labels on the slice it names, and every labelled slice has one."""
    dataset = result.dataset
    if (dataset.get("SegmentationType"), dataset.get("BitsAllocated"), dataset.get("Modality")) != (
        "LABELMAP",
        8,
        "SEG",
    ):
        raise result.refuse("form", "it is not a LABELMAP segmentation of 8 bits")
    seen = set()
    try:
        decoded = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    except (ValueError, RuntimeError, AttributeError, IndexError):
        raise result.refuse("pixels", "its pixel data cannot be decoded") from None
    for number, (frame, pixels) in enumerate(zip(frames(result), decoded, strict=True), start=1):
        index = source_slice(result, evidence, frame, number)
        expected = np.zeros_like(pixels)
        for segment in evidence.masks.present(index):
            expected[evidence.masks.on(index, segment)] = segment
        if index in seen or not np.array_equal(pixels, expected):
            raise result.refuse("pixels", f"frame {number} is not the labels on the slice it names")
        seen.add(index)
    if any(evidence.masks.counts[index, 1:].any() for index in evidence.slice_of.values() if index not in seen):
        raise result.refuse("pixels", "a slice on which something was found is missing")


def decode(result: Result) -> Iterator[NDArray[np.bool_]]:
    """Each frame, (rows, columns): bits from the lowest up, frames without padding between (PS3.5 8.1.1)."""
    dataset = result.dataset
    size, count = dataset.Rows * dataset.Columns, len(frames(result))
    packed = np.frombuffer(dataset.get("PixelData") or b"", np.uint8)
    if len(packed) != -(-size * count // 16) * 2:  # padded to an even number of bytes
        raise result.refuse("pixels", "pixel data has not the length that its frames need")
    for number in range(count):
        first, skip = divmod(number * size, 8)
        bits = np.unpackbits(packed[first : first + -(-(skip + size) // 8)], bitorder="little")[skip : skip + size]
        yield bits.reshape(dataset.Rows, dataset.Columns).astype(bool)


def _segment_of(result: Result, frame: Dataset, number: int) -> int:
    for group in (frame, *(result.dataset.get("SharedFunctionalGroupsSequence") or ())):
        for item in group.get("SegmentIdentificationSequence") or ():
            return int(item.get("ReferencedSegmentNumber") or 0)
    raise result.refuse("pixels", f"frame {number} does not name its segment")


def _code(code: CodeValue) -> tuple[str, str]:
    return code.value, code.scheme


def _colour(spec: SegmentSpec) -> list[float]:
    """PS3.3 C.10.7.1.1: L* 0..100 and a*, b* -128..127 to 16 bits each."""
    lightness, green_red, blue_yellow = spec.cielab
    scaled = (lightness / 100, (green_red + 128) / 255, (blue_yellow + 128) / 255)
    return [value * 0xFFFF for value in scaled]
