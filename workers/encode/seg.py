"""Labels to a DICOM Segmentation (PS3.3 A.51): BINARY, Explicit VR Little Endian, on the source's own grid."""

from __future__ import annotations

import copy

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.uid import ExplicitVRLittleEndian

from gateway.manifest import SegmentSpec
from workers.encode.codes import ARTIFICIAL_INTELLIGENCE, concept
from workers.encode.equipment import general_equipment, long_string
from workers.encode.source import Source

SERIES_NUMBER = 9001


def build_seg(source: Source) -> Segmentation:
    """One frame for each segment on each real slice where it is found; every frame names the image it lies on.

    Geometry is taken from the images themselves, slice by slice. Nothing lies on an interpolated slice, since there is no
    image to show it on. Where nothing is found at all every frame is written, empty: an object must have frames.
    """
    slices, omit_empty = _slices_to_write(source)
    images = [source.references[source.real_slices.index(index)] for index in slices]
    result = Segmentation(
        source_images=images,
        pixel_array=np.ascontiguousarray(source.labels[list(slices)]),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(source, spec) for spec in source.segments],
        series_instance_uid=source.uid("seg", "series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=source.uid("seg", "instance"),
        instance_number=1,
        omit_empty_frames=omit_empty,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="AI",
        content_description=long_string(f"{source.manifest.title}, AI result, not verified"),
        series_description=long_string(f"AI {source.manifest.title} (not verified)"),
        **general_equipment(source),
    )
    _settle(result, source)
    return result


def _settle(result: Segmentation, source: Source) -> None:
    # With a source image list at the top and frames that miss theirs, OHIF paints frame k on the list's item k. All our
    # frames have their own; the list can only do harm.
    del result.SourceImageSequence
    dimensions = source.uid("seg", "dimensions")  # highdicom draws one at random
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    bits = result.NumberOfFrames * result.Rows * result.Columns
    if -(-bits // 8) % 2:
        result.PixelData = result.PixelData[:-1] + b"\0"  # highdicom pads with the digit 0
    # Shared where all frames have one segment; many readers look for it in each frame only.
    shared = result.SharedFunctionalGroupsSequence[0].pop("SegmentIdentificationSequence", None)
    for frame in result.PerFrameFunctionalGroupsSequence if shared else ():
        frame.SegmentIdentificationSequence = copy.deepcopy(shared.value)


def _description(source: Source, spec: SegmentSpec) -> SegmentDescription:
    return SegmentDescription(
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


def _slices_to_write(source: Source) -> tuple[tuple[int, ...], bool]:
    """The slices that get frames, and whether a segment's empty frames on them are left out.

    Orthanc 1.10 cannot cut a frame out of a bit-packed object whose rows do not end on a byte. OHIF then takes the whole
    object, unless its pixel data has a padding byte, and then shows nothing at all. So where columns are not a multiple
    of 8 a few empty slices are added until frames end on an even byte.
    """
    painted = tuple(index for index in source.real_slices if source.labels[index].any())
    if not painted:
        return source.real_slices, False
    rows, columns = source.labels.shape[1:]
    if columns % 8 == 0 or _pairs(source, painted) * rows * columns % 16 == 0:
        return painted, True
    spare = [index for index in source.real_slices if index not in painted]
    for extra in range(len(spare) + 1):
        if (len(painted) + extra) * len(source.segments) * rows * columns % 16 == 0:
            return tuple(sorted((*painted, *spare[:extra]))), False
    return painted, True


def _pairs(source: Source, painted: tuple[int, ...]) -> int:
    """How many (slice, segment) pairs have voxels."""
    return sum(len(np.setdiff1d(source.labels[index], [0])) for index in painted)
