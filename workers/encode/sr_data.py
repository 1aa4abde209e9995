"""Measurements to the structured report that machines read: every group refers to a segment of the segmentation."""

from __future__ import annotations

from highdicom.sr import (
    Comprehensive3DSR,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from gateway.manifest import SegmentSpec
from workers.encode.report import build_report, description, measurements_of, tracking
from workers.encode.source import Source

SERIES_NUMBER = 9003


def build_sr_data(source: Source) -> Comprehensive3DSR:
    """One TID 1411 group for each segment. OHIF cannot open such a group, so it has a series and a name of its own."""
    segmentation = _segmentation(source)
    return build_report(
        source,
        "sr-data",
        [_group(source, spec, segmentation) for spec in source.segments],
        series_number=SERIES_NUMBER,
        description=f"AI volumes, data only: {source.manifest.title}",
        also=[segmentation],
    )


def _group(
    source: Source, spec: SegmentSpec, segmentation: Dataset
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking(source, spec, f"{source.identity.name} {spec.label}"),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=spec.number,
            source_series=SourceSeriesForSegmentation(source.references[0].SeriesInstanceUID),
        ),
        measurements=measurements_of(source, spec),
        **description(source, spec),
    )


def _segmentation(source: Source) -> Dataset:
    """The segmentation of the same result set, as far as a reference needs it: its UIDs are known before it is built."""
    reference = Dataset()
    reference.SOPClassUID = SegmentationStorage
    reference.SOPInstanceUID = source.uid("seg", "instance")
    reference.SeriesInstanceUID = source.uid("seg", "series")
    reference.StudyInstanceUID = source.references[0].StudyInstanceUID
    return reference
