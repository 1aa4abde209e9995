"""Measurements to the structured report that machines read: every group has the whole extent of what it measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from highdicom.sr import (
    Comprehensive3DSR,
    GraphicTypeValues,
    GraphicTypeValues3D,
    ImageRegion,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    SourceImageForMeasurement,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumeSurface,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from gateway.bundle.output import SegmentSpec
from gateway.domain.codes import CERTAINTY
from gateway.domain.messages import MeasurementResult
from gateway.domain.roles import SR_DATA
from workers.encode.codes import QUANTITY, concept
from workers.encode.outline import Region, key_region
from workers.encode.report import (
    Group,
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
from workers.encode.side import side_of
from workers.encode.source import Source
from workers.encode.sr import SCOPES, image_of, region_of
from workers.load.places import Box, Finding

SERIES_NUMBER = 9003
_FACES = (
    (0, 1, 3, 2),
    (4, 6, 7, 5),
    (0, 4, 5, 1),
    (2, 3, 7, 6),
    (0, 2, 6, 4),
    (1, 5, 7, 3),
)  # corners of a box's sides


def is_there(source: Source) -> bool:
    """Whether there is anything that the report for people does not hold: extents, or numbers of single images."""
    return bool(source.segments or source.each) or source.manifest.output.kind == "detection"


def is_3d(source: Source) -> bool:
    """Whether it has coordinates in space (SCOORD3D), which Comprehensive SR cannot carry."""
    return any(finding.box is not None and finding.box.slice is None for finding in source.findings)


def build_sr_data(source: Source) -> Comprehensive3DSR:
    """TID 1411 and 1410 groups. OHIF cannot open such a group, so it has a series and a name of its own."""
    return build_report(
        source,
        SR_DATA,
        [*volumes(source), *numbers(source)],
        series_number=SERIES_NUMBER,
        description=f"AI volumes, data only: {source.manifest.title}",
        also=segmentation(source),
    )


def volumes(source: Source) -> Iterator[Group]:
    """A group for each segment, which refers to it, and for each finding: a lesion by its outlines on all of its images, a box
    by its sides, a box on one image by its outline."""
    yield from (_segment(source, spec) for spec in source.segments)
    for finding in source.findings:
        if finding.box is not None and finding.box.slice is not None:
            yield planar(source, finding, region_of(source, finding), measurements_of_finding(source, finding))
        else:
            yield _volumetric(source, finding)


def segmentation(source: Source) -> list[Dataset]:
    """The segmentation of the same result set, as far as a reference needs it: its UIDs are known before it is built."""
    if not source.segments:
        return []
    reference = Dataset()
    reference.SOPClassUID = SegmentationStorage
    reference.SOPInstanceUID = source.uid("seg", "instance")
    reference.SeriesInstanceUID = source.uid("seg", "series")
    reference.StudyInstanceUID = source.references[0].StudyInstanceUID
    return [reference]


def planar(
    source: Source, finding: Finding, region: Region, measurements: Sequence[Measurement]
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410 about a finding on one image."""
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=image_region(source, region), measurements=measurements, **described(source, finding)
    )


def measurements_of_finding(source: Source, finding: Finding) -> list[Measurement]:
    """A finding's numbers as NUM items."""
    return [numeric(one.name, one.value, one.unit) for one in source.of_finding(finding.told.number)]


def image_region(source: Source, region: Region) -> ImageRegion:
    """An outline on its image."""
    return ImageRegion(
        graphic_type=GraphicTypeValues.POLYLINE, graphic_data=region.points, source_image=image_of(source, region)
    )


def _segment(source: Source, spec: SegmentSpec) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    (reference,) = segmentation(source)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(source, spec, f"{source.identity.name} {spec.label}"),
        referenced_segment=ReferencedSegment(
            sop_class_uid=reference.SOPClassUID,
            sop_instance_uid=reference.SOPInstanceUID,
            segment_number=spec.number,
            source_series=_series(source),
        ),
        measurements=measurements_of(source, spec),
        **description(source, spec),
    )


def _volumetric(source: Source, finding: Finding) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    box = finding.box
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_regions=[image_region(source, one) for one in _regions(source, finding)] if box is None else None,
        referenced_volume_surface=None if box is None else _surface(source, box),
        measurements=measurements_of_finding(source, finding),
        **described(source, finding),
    )


def _regions(source: Source, finding: Finding) -> Iterator[Region]:
    """The largest outline of a lesion on each of its images; at least that of the image to look at."""
    part, (rows, columns) = finding.part, source.masks.shape[1:]
    assert part is not None  # noqa: S101
    found = False
    for index in source.real_slices:
        plane = part.on(index, (rows, columns))
        if plane.any():
            found = True
            region = key_region(plane[None], (0,))
            yield Region(slice=index, points=region.points, pixels=region.pixels)
    if not found:
        yield region_of(source, finding)


def _surface(source: Source, box: Box) -> VolumeSurface:
    """The six sides of a box (SCOORD3D POLYGON, closed)."""
    return VolumeSurface(
        graphic_type=GraphicTypeValues3D.POLYGON,
        graphic_data=[box.corners[[*side, side[0]]] for side in _FACES],
        frame_of_reference_uid=source.references[0].FrameOfReferenceUID,
        source_series=_series(source),
    )


def _series(source: Source) -> SourceSeriesForSegmentation:
    return SourceSeriesForSegmentation(source.references[0].SeriesInstanceUID)


def numbers(source: Source) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    """One group for each number about all images; of a classification of single images, one for each finding with all of them."""
    output = source.manifest.output
    for index, said in enumerate(source.statements, start=1):
        spec = next((one for one in output.findings if one.name.value == said.name.value), None)
        name = said.name if spec is None else QUANTITY if output.kind == "detection" else CERTAINTY
        each = [one for one in source.each if one.name == said.name] or [said]
        yield MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(
                uid=source.uid("tracking", "number", str(index)),
                identifier=f"{said.name.meaning}, {'each image' if source.each else SCOPES[output.scope]}",
            ),
            measurements=[
                numeric(name, one.value, one.unit, referenced_images=_images(source, one) or None) for one in each
            ],
            qualitative_evaluations=presence(said),
            finding_type=concept(said.name),
            finding_sites=None
            if spec is None
            else sites(spec.site, side_of(source.volume, spec.site, spec.laterality)),
            algorithm_id=algorithm(source),
        )


def _images(source: Source, said: MeasurementResult) -> list[SourceImageForMeasurement]:
    if not said.sop_instance_uid:
        return []
    image = source.reference_of(source.slice_of(said))
    frames = None if said.frame_number is None else [said.frame_number]
    return [SourceImageForMeasurement(image.SOPClassUID, image.SOPInstanceUID, referenced_frame_numbers=frames)]
