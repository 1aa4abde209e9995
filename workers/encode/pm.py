"""A number for each voxel to a Parametric Map (PS3.3 A.75): 32 bit floats on the source's own grid."""

from __future__ import annotations

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import DerivedPixelContrastValues, ParametricMap, RealWorldValueMapping
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from gateway.domain.roles import PM
from workers.encode.codes import concept
from workers.encode.equipment import general_equipment, long_string
from workers.encode.file import copy_body_part
from workers.encode.frames import Frame, settle_frames
from workers.encode.source import Source
from workers.infer.output import QuantityMap

SERIES_NUMBER = 9007


def build_pm(source: Source, found: QuantityMap) -> ParametricMap:
    """One frame for each real slice that holds a number other than zero; of a map of zeros, the middle slice.

    Frames of a whole CT would take 300 MB, and most models have something to say of a part only.
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
    copy_body_part(result, source)
    return result


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
    filled = tuple(index for index in source.real_slices if found.values[index].any())
    return filled or (source.real_slices[len(source.real_slices) // 2],)
