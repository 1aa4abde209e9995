"""Measurements to the structured report that people open: every group lies on an image."""

from __future__ import annotations

from dataclasses import replace

from highdicom.sr import (
    Comprehensive3DSR,
    CoordinatesForMeasurement,
    GraphicTypeValues,
    MeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    TrackingIdentifier,
)

from gateway.bundle.output import SegmentSpec
from gateway.domain.codes import CERTAINTY
from gateway.domain.messages import MeasurementResult
from workers.encode.codes import AREA, QUANTITY, SQUARE_MILLIMETER, concept
from workers.encode.outline import Region, key_region, whole_image
from workers.encode.report import (
    algorithm,
    build_report,
    described,
    description,
    measurements_of,
    numeric,
    presence,
    sites,
    tracking,
)
from workers.encode.section import area, is_rectangle, section
from workers.encode.side import side_of
from workers.encode.source import Source
from workers.load.places import Finding

SERIES_NUMBER = 9002
SCOPES = {"study": "whole study", "series": "whole series", "image": "of all images the one with most"}
_FREEHAND = "PlanarFreehandROI"


def build_sr(source: Source) -> Comprehensive3DSR:
    """One TID 1501 group for each segment and each finding, with a 2D outline on its key slice below every number.

    OHIF opens groups of this shape only: one number without coordinates of its own blanks the whole report there. The
    outline says where to look; the full extent of a segment is in the segmentation.
    """
    groups = [
        *(_segment(source, spec) for spec in source.segments),
        *(_finding(source, finding) for finding in source.findings),
        *(_statement(source, index, said) for index, said in enumerate(source.statements, start=1)),
    ]
    return build_report(
        source,
        "sr",
        groups,
        series_number=SERIES_NUMBER,
        description=f"AI {source.manifest.title} measurements (not verified)",
    )


def _segment(source: Source, spec: SegmentSpec) -> MeasurementsAndQualitativeEvaluations:
    region = key_region(source.masks.of(spec.number), source.real_slices)
    places = [_coordinates(source, region)]
    size = numeric(AREA, _area(source, region), SQUARE_MILLIMETER, referenced_coordinates=places)
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(source, spec, _identifier(spec.label, region)),
        # Area comes first: OHIF takes an outline's first number for its area.
        measurements=[size, *measurements_of(source, spec, referenced_coordinates=places)],
        **description(source, spec),
    )


def _finding(source: Source, finding: Finding) -> MeasurementsAndQualitativeEvaluations:
    region = region_of(source, finding)
    places = [_coordinates(source, region)]
    size = numeric(AREA, _area(source, region), SQUARE_MILLIMETER, referenced_coordinates=places)
    said = [
        numeric(one.name, one.value, one.unit, referenced_coordinates=places)
        for one in source.of_finding(finding.told.number)
    ]
    identifier = TrackingIdentifier(
        uid=finding.told.tracking_uid, identifier=_identifier(finding.told.label, region, _tool(finding, region))
    )
    return MeasurementsAndQualitativeEvaluations(
        **{**described(source, finding), "tracking_identifier": identifier}, measurements=[size, *said]
    )


def _statement(source: Source, index: int, said: MeasurementResult) -> MeasurementsAndQualitativeEvaluations:
    """A number about all images, or one: how certain a finding is, how often it was found, or a value.

    It stands on the frame of its image, or the middle one, since OHIF opens no number without coordinates.
    """
    places = [_coordinates(source, whole_image(source.slice_of(said), source.masks.shape[1:]))]
    output = source.manifest.output
    spec = next((one for one in output.findings if one.name.value == said.name.value), None)
    name = said.name if spec is None else QUANTITY if output.kind == "detection" else CERTAINTY
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=source.uid("tracking", "number", str(index)), identifier=f"{said.name.meaning}, {SCOPES[output.scope]}"
        ),
        measurements=[numeric(name, said.value, said.unit, referenced_coordinates=places)],
        qualitative_evaluations=presence(said),
        finding_type=concept(said.name),
        finding_sites=None if spec is None else sites(spec.site, side_of(source.volume, spec.site, spec.laterality)),
        algorithm_id=algorithm(source),
    )


def region_of(source: Source, finding: Finding) -> Region:
    """Outline of a finding on its image; the frame of the image where nothing of it shows there."""
    rows, columns = source.masks.shape[1:]
    if finding.part is not None:
        region = key_region(finding.part.on(finding.slice, (rows, columns))[None], (0,))
        return replace(region, slice=finding.slice)
    assert finding.box is not None  # noqa: S101
    points = section(finding.box, source.volume.affine, float(source.volume.levels[finding.slice]), rows, columns)
    if not len(points):
        return whole_image(finding.slice, (rows, columns))
    return Region(slice=finding.slice, points=points, pixels=area(points))


def _coordinates(source: Source, region: Region) -> CoordinatesForMeasurement:
    return CoordinatesForMeasurement(
        graphic_type=GraphicTypeValues.POLYLINE, graphic_data=region.points, source_image=image_of(source, region)
    )


def image_of(source: Source, region: Region) -> SourceImageForRegion:
    """The image, or the frame of one, that an outline lies on."""
    image, number = source.reference_of(region.slice), source.volume.frame_number(region.slice)
    return SourceImageForRegion(
        image.SOPClassUID, image.SOPInstanceUID, referenced_frame_numbers=None if number is None else [number]
    )


def _tool(finding: Finding, region: Region) -> str:
    return "RectangleROI" if finding.box is not None and is_rectangle(region.points) else _FREEHAND


def _identifier(label: str, region: Region, tool: str = _FREEHAND) -> str:
    """Outlines become editable in OHIF by the names of its tools; the frame of an image where nothing was found must not."""
    if not region.pixels:
        return f"{label}, nothing found"
    return f"Cornerstone3DTools@^0.1.0:{tool}:{label}"


def _area(source: Source, region: Region) -> float:
    """Area in mm2 of what is outlined."""
    _, between_rows, between_columns = source.volume.spacing
    return region.pixels * between_rows * between_columns
