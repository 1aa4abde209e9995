"""What a result object is made from: the source slices, the labels on them, and who computed them for which job."""

from __future__ import annotations

import copy
import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DSfloat

from gateway.bundle.manifest import Manifest
from gateway.bundle.output import SegmentSpec
from gateway.domain.errors import InputRefused, ModelOutputInvalid
from gateway.domain.ids import derived_uid
from gateway.domain.messages import JobOrder, MeasurementResult, ModelIdentity
from workers.infer.output import QuantityMap
from workers.load.masks import Labels, Masks
from workers.load.places import Finding
from workers.load.volume import Volume

_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")  # PS3.3 C.12.1.1.8


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Whose a result object is: the images' patient and study, the model that made it, the job it was made for."""

    manifest: Manifest
    identity: ModelIdentity
    order: JobOrder
    provenance: Mapping[str, str] = field(default_factory=dict)  # what decided the numbers beside images and bundle

    @property
    def first(self) -> Dataset:
        """A source dataset to take the patient's and study's attributes from."""
        raise NotImplementedError

    @property
    def evidence(self) -> tuple[Dataset, ...]:
        """What result objects need to know of each image, once for each instance."""
        raise NotImplementedError

    @property
    def beside(self) -> tuple[tuple[Dataset, ...], ...]:
        """The same of each other series that the model was given."""
        return ()

    @property
    def images(self) -> tuple[Dataset, ...]:
        """References to every instance that the model was given."""
        return (*self.evidence, *chain.from_iterable(self.beside))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the result must know, each one sentence."""
        raise NotImplementedError

    def uid(self, *parts: str) -> str:
        """The UID that always belongs to this part of this job's result."""
        return derived_uid(self.order.job_id, *parts)

    @cached_property
    def moment(self) -> datetime.datetime:
        """Content date and time: in the time zone the images declare, else in the machine's."""
        declared = _OFFSET.fullmatch(str(self.first.get("TimezoneOffsetFromUTC", "")))
        if declared is None:
            return datetime.datetime.fromtimestamp(self.order.content_time, datetime.UTC).astimezone()
        sign, hours, minutes = declared.groups()
        offset = datetime.timedelta(hours=int(hours), minutes=int(minutes)) * (1 if sign == "+" else -1)
        return datetime.datetime.fromtimestamp(self.order.content_time, datetime.timezone(offset))


@dataclass(frozen=True, kw_only=True)
class Source(Origin):
    """One job's images and output, checked to fit together."""

    volume: Volume
    labels: Labels
    measurements: tuple[MeasurementResult, ...]
    maps: tuple[QuantityMap, ...] = ()
    findings: tuple[Finding, ...] = ()
    each: tuple[MeasurementResult, ...] = ()  # what was said of each image

    def __post_init__(self) -> None:
        for shape in (self.masks.shape, *(found.values.shape for found in self.maps)):
            if shape != self.volume.voxels.shape:
                raise ModelOutputInvalid(
                    f"labels or maps have the shape {shape}, the images {self.volume.voxels.shape}", code="shape"
                )
        if len({found.name for found in self.maps}) < len(self.maps):
            raise ModelOutputInvalid("two maps have the same name", code="map")
        if self.masks.largest > len(self.manifest.output.segments):
            raise ModelOutputInvalid("labels hold a number that the manifest does not define", code="label")
        if not self.real_slices:
            raise InputRefused("no slice of the volume is a real image", code="no_images")
        images = [
            (self.reference_of(index).SOPInstanceUID, self.volume.frame_number(index)) for index in self.real_slices
        ]
        if len(set(images)) != len(images):
            raise InputRefused("the same SOP Instance UID stands for several slices", code="duplicate_instance")

    @property
    def first(self) -> Dataset:
        """Of the first real slice."""
        return self.volume.first

    @cached_property
    def real_slices(self) -> tuple[int, ...]:
        """Indices of the slices that are images, not interpolated over a gap."""
        return tuple(index for index, header in enumerate(self.volume.headers) if header is not None)

    @cached_property
    def masks(self) -> Masks:
        """The labels, to be asked."""
        return Masks(self.labels)

    @cached_property
    def usual_range(self) -> tuple[float, float]:
        """Least and largest value to show: all but the darkest and brightest few voxels of every fourth in each direction."""
        low, high = np.percentile(self.volume.voxels[::2, ::4, ::4], (1, 99.5))
        return float(low), float(high)

    def reference_of(self, index: int) -> Dataset:
        """The reference of a real slice."""
        return self.references[self.real_slices.index(index)]

    def stand_in(self, index: int) -> Dataset:
        """The reference for building an object around; highdicom would look for functional groups in multi-frame images."""
        reference = copy.deepcopy(self.reference_of(index))  # a shallow copy would share its elements
        if self.volume.frames:
            reference.SOPClassUID = CTImageStorage
        return reference

    @cached_property
    def evidence(self) -> tuple[Dataset, ...]:
        """The references, each instance once: slices of a multi-frame image are one."""
        return tuple({str(reference.SOPInstanceUID): reference for reference in self.references}.values())

    @cached_property
    def beside(self) -> tuple[tuple[Dataset, ...], ...]:
        """References, once for each instance."""
        return tuple(
            tuple(_reference(header, _common(header, self.volume.spacing[0])) for header in companion.headers)
            for companion in self.volume.companions
            if companion.headers
        )

    @cached_property
    def references(self) -> tuple[Dataset, ...]:
        """For each real slice what result objects need to know of it, and no more; orientation and spacing are the first's."""
        headers = [header for header in self.volume.headers if header is not None]
        between = self.volume.spacing[0]
        # Scanners may round each image's own; an object has one for all of its frames.
        common = _common(self.first, between)
        if self.volume.places:
            # Of thick and thin slices the least, so that no frame claims more than its image shows. Frames cannot have their own:
            # OHIF shows a black page of such an object.
            common.SliceThickness = _decimal(min(_thickness(header) or between for header in headers))
        return tuple(_reference(header, common) for header in headers)

    @property
    def segments(self) -> tuple[SegmentSpec, ...]:
        """The segments, numbered 1..N."""
        return self.manifest.output.segments

    @property
    def statements(self) -> tuple[MeasurementResult, ...]:
        """The numbers that are about all images, or one, and not about a segment or a finding."""
        return tuple(one for one in self.measurements if one.segment is None and one.finding is None)

    def of_finding(self, number: int) -> tuple[MeasurementResult, ...]:
        """The numbers of one finding."""
        return tuple(one for one in self.measurements if one.finding == number)

    def slice_of(self, said: MeasurementResult) -> int:
        """The slice that a number is about; the middle one where it is about all of them."""
        for index in self.real_slices:
            if said.sop_instance_uid and (said.sop_instance_uid, said.frame_number) == (
                str(self.reference_of(index).SOPInstanceUID),
                self.volume.frame_number(index),
            ):
                return index
        return self.real_slices[len(self.real_slices) // 2]

    def tracking_uid(self, segment: int) -> str:
        """The same in every object that speaks of the segment."""
        return self.uid("tracking", str(segment))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the result must know, each one sentence."""
        found = dict.fromkeys((*self.order.flags, *self.volume.flags))  # in order, each once
        absent = [spec.label for spec in self.segments if not self.masks.total(spec.number)]
        if self.manifest.output.kind == "detection":
            absent = [total.name.meaning for total in self.statements if not total.value]
        return (*found, *(f"Nothing found: {label}." for label in absent))


def _reference(header: Dataset, common: Dataset) -> Dataset:
    """The slice as highdicom is shown it: identity and geometry only, orientation and spacing as in ``common``."""
    if not header.get("FrameOfReferenceUID"):
        raise InputRefused(
            "the images have no Frame of Reference UID, so no result can be placed on them", code="no_frame"
        )
    reference = Dataset()
    reference.update(common)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(reference, keyword, str(header[keyword].value))
    reference.Modality = str(header.get("Modality") or "OT")
    reference.PositionReferenceIndicator = str(header.get("PositionReferenceIndicator") or "")
    reference.Rows, reference.Columns = int(header.Rows), int(header.Columns)
    reference.ImagePositionPatient = [_decimal(value) for value in header.ImagePositionPatient]
    if header.get("LossyImageCompression") == "01":
        reference.LossyImageCompression = "01"
    return reference


def _common(header: Dataset, between: float) -> Dataset:
    """What slices share; references hold the same elements.

    Patient and study attributes are left empty here and copied from the source afterwards, so that no odd value of theirs
    is parsed, corrected or refused on the way.
    """
    common = Dataset()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(common, keyword, "")
    common.StudyDate = common.StudyTime = None
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        setattr(common, keyword, [_decimal(value) for value in header[keyword].value])
    common.SliceThickness = _decimal(_thickness(header) or between)
    common.SpacingBetweenSlices = _decimal(between)  # as measured; the header's own is often a gap or wrong
    return common


def _thickness(header: Dataset) -> float:
    try:
        value = float(header.get("SliceThickness") or 0)
    except (TypeError, ValueError):
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _decimal(value: float) -> DSfloat:
    """A decimal string of at most 16 characters (PS3.5 6.2), whatever length the source wrote."""
    return DSfloat(float(value), auto_format=True)
