"""Labels to a Label Map Segmentation (PS3.3 A.51, C.8.20.2): one frame for each slice, RLE, a tenth of the size of BINARY.

Not every viewer and archive takes it, so it is written only where a job is asked for it, and never of segments that overlap.
"""

from __future__ import annotations

import numpy as np
from highdicom.seg import Segmentation, SegmentationTypeValues
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from gateway.domain.roles import SEG_LABELMAP
from workers.encode.frames import Frame, settle_frames
from workers.encode.seg import skeleton
from workers.encode.source import Source

SERIES_NUMBER = 9008


def build_seg_labelmap(source: Source) -> Segmentation:
    """One frame for each real slice on which anything is found, or for each real slice where nothing is found at all."""
    slices = [index for index in source.real_slices if source.masks.counts[index, 1:].any()] or source.real_slices
    result = skeleton(source, SEG_LABELMAP, SegmentationTypeValues.LABELMAP, ExplicitVRLittleEndian, SERIES_NUMBER)
    # highdicom describes the background as a segment of its own, which shifts the colours of viewers that count items.
    # Background is what is not there: padding (PS3.3 C.8.20.2.3.3).
    result.SegmentSequence = [item for item in result.SegmentSequence if item.SegmentNumber]
    result.PixelPaddingValue = 0
    result.file_meta.TransferSyntaxUID = RLELossless
    result.PixelData = encapsulate([_compressed(_plane(source, index)) for index in slices])
    result["PixelData"].VR = "OB"
    result["PixelData"].is_undefined_length = True
    result.SegmentsOverlap = "NO"
    settle_frames(result, source, [Frame(index) for index in slices], codes.DCM.Segmentation, SEG_LABELMAP)
    return result


def _plane(source: Source, index: int) -> NDArray[np.uint8]:
    plane = np.zeros(source.masks.shape[1:], np.uint8)
    for number in source.masks.present(index):
        plane[source.masks.on(index, number)] = number
    return plane


def _compressed(plane: NDArray[np.uint8]) -> bytes:
    rows, columns = plane.shape
    return RLELosslessEncoder.encode(
        np.ascontiguousarray(plane),
        rows=rows, columns=columns, samples_per_pixel=1, number_of_frames=1, pixel_representation=0,
        bits_allocated=8, bits_stored=8, photometric_interpretation="MONOCHROME2",
    )  # fmt: skip
