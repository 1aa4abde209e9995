"""The report for people in the templates of regions to the letter, for readers that insist on them.

What a number was measured on stands in its group once (TID 1410: a region on an image; TID 1411: a volume), not under each number.
OHIF shows such outlines, but makes nothing of them that can be edited, and opens no group of a volume at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from highdicom.sr import (
    Comprehensive3DSR,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    TrackingIdentifier,
)

from gateway.bundle.output import SegmentSpec
from gateway.domain.roles import SR_STRICT
from workers.encode.codes import AREA, SQUARE_MILLIMETER
from workers.encode.outline import key_region
from workers.encode.report import build_report, description, numeric
from workers.encode.source import Source
from workers.encode.sr_data import image_region, numbers, segmentation, volumes

SERIES_NUMBER = 9008


def build_sr_strict(source: Source) -> Comprehensive3DSR:
    """TID 1410 for the key outline of each segment, TID 1411 for segments, lesions and boxes, TID 1501 for what has no place."""
    return build_report(
        source,
        SR_STRICT,
        [*_outlines(source), *volumes(source), *numbers(source)],
        series_number=SERIES_NUMBER,
        description=f"AI {source.manifest.title} regions (not verified)",
        also=segmentation(source),
    )


def _outlines(source: Source) -> Iterator[PlanarROIMeasurementsAndQualitativeEvaluations]:
    """Of each segment that was found, its largest part on the image with most of it, and the area there."""
    for spec in source.segments:
        if source.masks.counts[list(source.real_slices), spec.number].any():
            yield _outline(source, spec)


def _outline(source: Source, spec: SegmentSpec) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    region = key_region(source.masks.of(spec.number), source.real_slices)
    _, between_rows, between_columns = source.volume.spacing
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        # A group's tracking UID is that of what it measures: the outline is not the segment.
        tracking_identifier=TrackingIdentifier(
            uid=source.uid("tracking", str(spec.number), "outline"), identifier=f"{spec.label}, largest outline"
        ),
        referenced_region=image_region(source, region),
        measurements=[numeric(AREA, region.pixels * between_rows * between_columns, SQUARE_MILLIMETER)],
        **description(source, spec),
    )
