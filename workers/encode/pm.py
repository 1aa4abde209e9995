"""A number for each voxel to a Parametric Map (PS3.3 A.75): 32 bit floats on the source's own grid."""

from __future__ import annotations

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import DerivedPixelContrastValues, ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from gateway.domain.roles import PM
from workers.encode.codes import concept, concept_item
from workers.encode.equipment import general_equipment, long_string
from workers.encode.file import copy_body_part
from workers.encode.frames import Frame, settle_frames
from workers.encode.source import Source
from workers.infer.output import QuantityMap

SERIES_NUMBER = 9007

_REGIONS = {name.upper(): getattr(codes.cid4031, name) for name in codes.cid4031.dir()} | {"BRAIN": codes.SCT.Brain}
"""Body Part Examined -> the region's code, where both have one name (PS3.16 annex L)."""

_WHOLE = 2**27
"""Bytes of a map that is written whole: viewers that lay a map on a stack want a frame for each image."""


def build_pm(source: Source, found: QuantityMap) -> ParametricMap:
    """One frame for each real slice, along the slices' normal.

    OHIF 3.13 lays frames on its stack by their number alone: they must be as many as the images, in the order in which it
    sorts these. Of a volume larger than 128 MiB as floats only slices are written that hold a number other than zero (a whole
    CT takes 300 MB, and most models have something to say of a part only); of a map of zeros, the middle one.
    """
    slices = _slices_to_write(source, found)
    values = np.ascontiguousarray(found.values[list(slices)], dtype="<f4")
    low, high = float(values.min()), float(values.max())
    result = ParametricMap(
        source_images=[source.stand_in(slices[0])],
        pixel_array=values[:1],
        series_instance_uid=source.uid(PM, found.name, "series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=source.uid(PM, found.name, "instance"),
        instance_number=1,
        contains_recognizable_visual_features=True,  # nobody has shown that it does not
        real_world_value_mappings=[_mapping(found, low, high)],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=(low + high) / 2, window_width=max(high - low, 1e-6), voi_lut_function="LINEAR_EXACT"
            )
        ],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        derived_pixel_contrast=DerivedPixelContrastValues.QUANTITY,
        content_label="AI",
        content_description=long_string(f"{found.label}, AI result, not verified"),
        series_description=long_string(f"AI, not verified: {found.label}, {source.manifest.title}"),
        **general_equipment(source),
    )
    result.FloatPixelData = values.tobytes()
    settle_frames(result, source, [Frame(index) for index in slices], codes.DCM.ImageProcessing, f"{PM} {found.name}")
    result.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(source)]
    copy_body_part(result, source)
    return result


def _anatomy(source: Source) -> Dataset:
    """PS3.3 C.7.6.16.2.8: optional here, but dcmqi 1.5.7 (3D Slicer) crashes on a map without it."""
    part = str(source.first.get("BodyPartExamined") or "").upper()
    item = Dataset()
    item.AnatomicRegionSequence = [concept_item(_REGIONS.get(part, codes.SCT.AnatomicalStructure))]
    sides = (str(source.first.get(keyword) or "") for keyword in ("ImageLaterality", "Laterality"))
    item.FrameLaterality = next((side for side in sides if side in ("R", "L", "B")), "U")
    return item


def _mapping(found: QuantityMap, low: float, high: float) -> RealWorldValueMapping:
    """The stored numbers are the quantity itself (PS3.3 C.7.6.16.2.11)."""
    return RealWorldValueMapping(
        lut_label=found.name.upper()[:16],
        lut_explanation=long_string(found.label),
        unit=concept(found.unit),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=concept(found.quantity),
    )


def _slices_to_write(source: Source, found: QuantityMap) -> tuple[int, ...]:
    real = source.real_slices
    if len(real) * found.values[0].size * 4 > _WHOLE:
        real = tuple(index for index in real if found.values[index].any()) or (real[len(real) // 2],)
    between, down, right = source.volume.affine[:3, :3].T
    return real if between @ np.cross(right, down) > 0 else real[::-1]
