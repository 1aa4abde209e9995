"""What the gate judges by: the written files as a stranger reads them, beside the images and labels they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from gateway.bundle.manifest import Manifest
from gateway.domain import roles
from gateway.domain.errors import GateRefused
from gateway.domain.messages import JobOrder, MeasurementResult, ResultObject
from workers.infer.output import QuantityMap
from workers.load.masks import Labels, Masks
from workers.load.places import Finding
from workers.load.volume import Volume

SOP_CLASSES = {
    roles.SEG: SegmentationStorage,
    roles.SEG_LABELMAP: "1.2.840.10008.5.1.4.1.1.66.7",  # newer than pydicom's dictionary
    roles.SEG_ALL_FRAMES: SegmentationStorage,
    roles.SR: Comprehensive3DSRStorage,
    roles.SR_STRICT: Comprehensive3DSRStorage,
    roles.SR_DATA: Comprehensive3DSRStorage,
    roles.SR_COMPREHENSIVE: ComprehensiveSRStorage,
    roles.SR_DATA_COMPREHENSIVE: ComprehensiveSRStorage,
    roles.PM: ParametricMapStorage,
    roles.SC: SecondaryCaptureImageStorage,
    roles.PDF: EncapsulatedPDFStorage,
    roles.KO: KeyObjectSelectionDocumentStorage,
}
_CODES = ("CodeValue", "LongCodeValue", "URNCodeValue")  # PS3.3 8.1: longer than 16 characters; a URI
_UNSAID = (None, "UN")  # pydicom looks it up
COMPRESSED = {roles.SEG_LABELMAP: RLELossless}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One written object."""

    role: str
    dataset: Dataset

    @property
    def kind(self) -> str:
        """The role whose rules it has to keep: another form of an object says the same."""
        return roles.USUAL_FORM.get(self.role, self.role)

    def refuse(self, code: str, what: str) -> GateRefused:
        """The error that says what is wrong with this object; never with a patient's data."""
        return GateRefused(f"{self.role}: {what}", code=code)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the result set must agree with."""

    volume: Volume
    labels: Labels
    measurements: tuple[MeasurementResult, ...]
    manifest: Manifest
    order: JobOrder
    maps: tuple[QuantityMap, ...] = ()
    findings: tuple[Finding, ...] = ()
    each: tuple[MeasurementResult, ...] = ()

    @property
    def statements(self) -> list[MeasurementResult]:
        """The numbers that are of no segment and no finding."""
        return [one for one in self.measurements if one.segment is None and one.finding is None]

    @cached_property
    def masks(self) -> Masks:
        """The labels, to be asked."""
        return Masks(self.labels)

    @cached_property
    def class_of(self) -> dict[str, str]:
        """SOP Instance UID of each image that the job was given -> its SOP class."""
        return {uid: str(header.SOPClassUID) for uid, header in self._images.items()}

    @cached_property
    def series_of(self) -> dict[str, str]:
        """SOP Instance UID of each image that the job was given -> its series."""
        return {uid: str(header.SeriesInstanceUID) for uid, header in self._images.items()}

    @cached_property
    def study_of(self) -> dict[str, str]:
        """SOP Instance UID of each image that the job was given -> its study."""
        return {uid: str(header.StudyInstanceUID) for uid, header in self._images.items()}

    @cached_property
    def _images(self) -> dict[str, Dataset]:
        given = {file.sop_instance_uid for file in self.order.inputs}
        others = (header for each in self.volume.companions for header in each.headers)
        images = (*(self.header(index) for index in self.slice_of.values()), *others)
        return {str(header.SOPInstanceUID): header for header in images if str(header.SOPInstanceUID) in given}

    def slice_at(self, reference: Dataset) -> int | None:
        """Index of the slice that an item names: an image of the input, and a frame of it where it has several."""
        numbers = reference.get("ReferencedFrameNumber")
        frames = [] if numbers is None else [int(number) for number in np.atleast_1d(numbers)]
        frame = frames[0] if len(frames) == 1 else None
        return self.slice_of.get((str(reference.get("ReferencedSOPInstanceUID", "")), frame))

    @cached_property
    def slice_of(self) -> dict[tuple[str, int | None], int]:
        """SOP Instance UID, and frame number in a multi-frame image, of each image the job was given -> its slice."""
        given = {file.sop_instance_uid for file in self.order.inputs}
        return {
            (str(header.SOPInstanceUID), self.volume.frame_number(index)): index
            for index, header in enumerate(self.volume.headers)
            if header is not None and str(header.SOPInstanceUID) in given
        }

    def header(self, index: int) -> Dataset:
        """The image of a slice; only for indices out of `slice_of`."""
        header = self.volume.headers[index]
        if header is None:
            raise LookupError(f"slice {index} has no image")
        return header


def read(described: ResultObject, directory: Path) -> Result:
    """The file as it is on disk; raises GateRefused where it is not the one described, or no DICOM file."""
    role = described.role
    try:
        data = (directory / described.file).read_bytes()
        dataset = dcmread(directory / described.file)
    except (OSError, InvalidDicomError) as error:
        raise GateRefused(f"{role}: the file cannot be read back", code="unreadable") from error
    result = Result(role=role, dataset=dataset)
    if hashlib.sha256(data).hexdigest() != described.sha256 or len(data) != described.size:
        raise result.refuse("digest", "the file is not the one that was written")
    check_description(result, described)
    return result


def check_description(result: Result, described: ResultObject) -> None:
    """File, dataset and description name one and the same object of the class its role asks for."""
    dataset, meta = result.dataset, result.dataset.file_meta
    if described.role not in SOP_CLASSES:
        raise result.refuse("role", "no such kind of result is known")
    if {dataset.get("SOPClassUID"), meta.get("MediaStorageSOPClassUID"), described.sop_class_uid} != {
        SOP_CLASSES[described.role]
    }:
        raise result.refuse("sop_class", "SOP Class UID is not the one of its kind")
    if {dataset.get("SOPInstanceUID"), meta.get("MediaStorageSOPInstanceUID")} != {described.sop_instance_uid}:
        raise result.refuse("sop_instance", "SOP Instance UID differs between file and description")
    if dataset.get("SeriesInstanceUID") != described.series_uid:
        raise result.refuse("series", "Series Instance UID differs between file and description")
    if meta.get("TransferSyntaxUID") != COMPRESSED.get(described.role, ExplicitVRLittleEndian):
        raise result.refuse("transfer_syntax", "transfer syntax is not the one of its kind")


def code_of(dataset: Dataset, keyword: str) -> tuple[str, str]:
    """Value and scheme of the first item of a code sequence; two empty strings where there is none."""
    for item in dataset.get(keyword) or ():
        value = next((item.get(name) for name in _CODES if item.get(name)), "")
        return str(value), str(item.get("CodingSchemeDesignator") or "")
    return "", ""


def elements(dataset: Dataset, representations: Collection[str]) -> Iterator[DataElement]:
    """All elements of these value representations, at any depth; no other is parsed."""
    for tag in sorted(dataset.keys()):
        said = dataset.get_item(tag).VR
        if said not in (*representations, "SQ", *_UNSAID):
            continue
        element = dataset[tag]
        if element.VR in representations:
            yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from elements(item, representations)


def referenced(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """SOP class and instance of every item, at any depth, that refers to an instance."""
    for element in elements(dataset, ("SQ",)):
        for item in element.value:
            if "ReferencedSOPInstanceUID" in item:
                yield str(item.get("ReferencedSOPClassUID", "")), str(item.ReferencedSOPInstanceUID)
