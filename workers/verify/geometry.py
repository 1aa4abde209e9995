"""Does every frame lie where its image lies? No public validator of DICOM asks."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset

from workers.verify.evidence import Evidence, Result

POSITION_TOLERANCE = 1e-3  # mm
DIRECTION_TOLERANCE = 2.5e-3  # length of the difference of both direction cosines: 1e-3 for each number
SPACING_TOLERANCE = 2e-3  # relative; images of one series may differ by rounding


def check_stack(evidence: Evidence) -> None:
    """Index k of the labels is the slice that image k says it is: no stack upside down, mirrored or shifted.

    Evenly spaced slices are an approximation; half the least distance is the limit beyond which a label lies nearer to another
    image.
    """
    levels = evidence.volume.levels
    limit = 0.5 * evidence.volume.spacing[0] * float(np.diff(levels).min(initial=1.0))
    affine, images = evidence.volume.affine, Result(role="images", dataset=evidence.volume.first)
    for index in evidence.slice_of.values():
        header = evidence.header(index)
        rows, columns = _vector(header.PixelSpacing)
        along_row, along_column = np.split(_vector(header.ImageOrientationPatient), 2)
        steps = np.array([along_column * rows, along_row * columns])
        if not np.allclose(affine[:3, 1:3].T, steps, atol=1e-2 * min(rows, columns)):
            raise images.refuse("stack", f"rows or columns of slice {index} do not run as its image says")
        offset = affine[:3, 3] + levels[index] * affine[:3, 0] - _vector(header.ImagePositionPatient)
        if np.linalg.norm(offset) > limit:
            raise images.refuse("stack", f"slice {index} does not lie where its image says")


def check_frame_of_reference(result: Result, evidence: Evidence) -> None:
    """Same Frame of Reference UID and matrix as the images."""
    dataset, image = result.dataset, evidence.volume.first
    if dataset.get("FrameOfReferenceUID") != image.FrameOfReferenceUID:
        raise result.refuse("frame_of_reference", "Frame of Reference UID is not that of the images")
    if (dataset.get("Rows"), dataset.get("Columns")) != (image.Rows, image.Columns):
        raise result.refuse("matrix", "Rows and Columns are not those of the images")


def check_top_level_sources(result: Result, _: Evidence) -> None:
    """No Source Image Sequence at the top: OHIF takes it for a list of frames."""
    if "SourceImageSequence" in result.dataset:
        raise result.refuse("source_list", "Source Image Sequence stands at the top level")


def check_frames(result: Result, evidence: Evidence) -> None:
    """Each frame names one image of the input, and has that image's position, orientation and spacing.

    What all frames have in common stands once: OHIF 3.13 shows a black page where Pixel Measures are not shared.
    """
    shared = result.dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    if any(not shared[0].get(keyword) for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence")):
        raise result.refuse("spacing", "spacing or orientation of frames is not shared by all of them")
    for number, frame in enumerate(frames(result), start=1):
        image = evidence.header(source_slice(result, evidence, frame, number))
        groups = (frame, *(result.dataset.get("SharedFunctionalGroupsSequence") or ()))
        place = _group(groups, "PlanePositionSequence", "ImagePositionPatient")
        if not _near(place, image.ImagePositionPatient, POSITION_TOLERANCE):
            raise result.refuse("position", f"frame {number} does not lie where its source image lies")
        turn = _group(groups, "PlaneOrientationSequence", "ImageOrientationPatient")
        if not _near(turn, image.ImageOrientationPatient, DIRECTION_TOLERANCE):
            raise result.refuse("orientation", f"frame {number} is not turned as its source image is")
        spacing = _group(groups, "PixelMeasuresSequence", "PixelSpacing")
        if not _near(spacing, image.PixelSpacing, SPACING_TOLERANCE * float(min(image.PixelSpacing))):
            raise result.refuse("spacing", f"frame {number} has not the pixel spacing of its source image")


def frames(result: Result) -> list[Dataset]:
    """Items of Per-frame Functional Groups Sequence; raises GateRefused where they are not as many as frames."""
    items = list(result.dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if not items or len(items) != result.dataset.get("NumberOfFrames"):
        raise result.refuse("frames", "number of frames and of their descriptions differ")
    return items


def source_slice(result: Result, evidence: Evidence, frame: Dataset, number: int) -> int:
    """Index of the slice that the frame names as its source; raises GateRefused where it names none or another's."""
    sources = [
        source
        for derivation in frame.get("DerivationImageSequence") or ()
        for source in derivation.get("SourceImageSequence") or ()
    ]
    if len(sources) != 1:
        raise result.refuse("no_source", f"frame {number} does not name exactly one source image")
    index = evidence.slice_at(sources[0])
    if index is None:
        raise result.refuse("unknown_source", f"frame {number} names a source image that is not in the input")
    if sources[0].get("ReferencedSOPClassUID") != evidence.header(index).SOPClassUID:
        raise result.refuse("unknown_source", f"frame {number} names its source image with another SOP class")
    return index


def _group(groups: tuple[Dataset, ...], sequence: str, keyword: str) -> ArrayLike | None:
    for group in groups:
        for item in group.get(sequence) or ():
            if item.get(keyword) is not None:
                return cast(ArrayLike, item[keyword].value)
    return None


def _near(values: ArrayLike | None, expected: ArrayLike, tolerance: float) -> bool:
    if values is None:
        return False
    found, wanted = _vector(values), _vector(expected)
    return found.shape == wanted.shape and bool(np.linalg.norm(found - wanted) <= tolerance)


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    return np.array([float(value) for value in cast(list[float], values)])
