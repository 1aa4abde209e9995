"""Measurements to the structured report that people open: every group lies on an image."""

from __future__ import annotations

import numpy as np
from highdicom.sr import (
    Comprehensive3DSR,
    CoordinatesForMeasurement,
    FindingSite,
    GraphicTypeValues,
    MeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    TrackingIdentifier,
)

from gateway.manifest import SegmentSpec
from workers.encode.codes import AREA, CERTAINTY, SQUARE_MILLIMETER, concept
from workers.encode.outline import Region, key_region
from workers.encode.report import algorithm, build_report, description, measurements_of, numeric, tracking
from workers.encode.source import Source

SERIES_NUMBER = 9002
_FREEHAND = "Cornerstone3DTools@^0.1.0:PlanarFreehandROI"


def build_sr(source: Source) -> Comprehensive3DSR:
    """One TID 1501 group for each segment, with a 2D outline on its key slice below every number.

    OHIF opens groups of this shape only: one number without coordinates of its own blanks the whole report there. The
    outline says where to look; the full extent of a segment is in the segmentation.
    """
    return build_report(
        source,
        "sr",
        [*(_group(source, spec) for spec in source.segments), *_statements(source)],
        series_number=SERIES_NUMBER,
        description=f"AI {source.manifest.title} measurements (not verified)",
    )


def _group(source: Source, spec: SegmentSpec) -> MeasurementsAndQualitativeEvaluations:
    region = key_region(source.masks.of(spec.number), source.real_slices)
    places = [_coordinates(source, region)]
    area = numeric(AREA, _area(source, region), SQUARE_MILLIMETER, referenced_coordinates=places)
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(source, spec, _identifier(spec, region)),
        # Area comes first: OHIF takes a freehand outline's first number for its area.
        measurements=[area, *measurements_of(source, spec, referenced_coordinates=places)],
        **description(source, spec),
    )


def _statements(source: Source) -> list[MeasurementsAndQualitativeEvaluations]:
    """One group for each number that is about the whole series: a probability with its finding, or a value.

    Each stands on the frame of the middle image, since OHIF opens no number without coordinates.
    """
    nothing = np.zeros(source.masks.shape, bool)
    places = [_coordinates(source, key_region(nothing, source.real_slices))]
    sites = {finding.name.value: finding.site for finding in source.manifest.output.findings}
    groups = []
    for index, found in enumerate((one for one in source.measurements if one.segment is None), start=1):
        finding = found.name.value in sites
        site = sites.get(found.name.value)
        name = CERTAINTY if finding else found.name
        groups.append(
            MeasurementsAndQualitativeEvaluations(
                tracking_identifier=TrackingIdentifier(
                    uid=source.uid("tracking", "number", str(index)), identifier=f"{found.name.meaning}, whole series"
                ),
                measurements=[numeric(name, found.value, found.unit, referenced_coordinates=places)],
                finding_type=concept(found.name),
                finding_sites=None if site is None else [FindingSite(concept(site))],
                algorithm_id=algorithm(source),
            )
        )
    return groups


def _coordinates(source: Source, region: Region) -> CoordinatesForMeasurement:
    image, number = source.reference_of(region.slice), source.volume.frame_number(region.slice)
    return CoordinatesForMeasurement(
        graphic_type=GraphicTypeValues.POLYLINE,
        graphic_data=region.points,
        source_image=SourceImageForRegion(
            image.SOPClassUID,
            image.SOPInstanceUID,
            referenced_frame_numbers=None if number is None else [number],
        ),
    )


def _identifier(spec: SegmentSpec, region: Region) -> str:
    """Outlines become editable in OHIF by this name of its tool; the frame of an image where nothing was found must not."""
    return f"{_FREEHAND}:{spec.label}" if region.pixels else f"{spec.label}, nothing found"


def _area(source: Source, region: Region) -> float:
    """Area in mm2 of the outlined part of the segment."""
    _, between_rows, between_columns = source.volume.spacing
    return region.pixels * between_rows * between_columns
