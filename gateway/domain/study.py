"""What arrived: instances, and the series and studies they add up to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.domain.ids import (
    AETitle,
    AssociationId,
    InputSetId,
    InstanceUID,
    SeriesUID,
    Sha256,
    StudyUID,
)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who the images are of, exactly as the source wrote it (PS3.3 C.7.1.1); empty where the source was."""

    patient_id: str = ""  # (0010,0020)
    issuer: str = ""  # Issuer of Patient ID (0010,0021)
    name: str = ""  # (0010,0010), all groups, `=` kept
    birth_date: str = ""  # (0010,0030), YYYYMMDD
    sex: str = ""  # (0010,0040)

    def key(self) -> tuple[str, str, str]:
        """What must be the same in every instance of a study; names are compared without padding and case."""
        folded = self.name.casefold().strip("^= ").replace(" ", "")
        return self.patient_id.strip(), self.issuer.strip(), folded


@dataclass(frozen=True, kw_only=True)
class Header:
    """The attributes of one instance that the gateway works with; pixels are never read here."""

    sop_class_uid: str  # (0008,0016)
    sop_instance_uid: InstanceUID  # (0008,0018)
    series_uid: SeriesUID  # (0020,000E)
    study_uid: StudyUID  # (0020,000D)
    transfer_syntax_uid: str  # of the stored dataset
    patient: Patient
    modality: str = ""  # (0008,0060)
    accession_number: str = ""  # (0008,0050)
    study_id: str = ""  # (0020,0010)
    study_date: str = ""  # (0008,0020), YYYYMMDD
    study_time: str = ""  # (0008,0030), HHMMSS.FFFFFF
    study_description: str = ""  # (0008,1030)
    series_description: str = ""  # (0008,103E)
    series_number: str = ""  # (0020,0011)
    instance_number: str = ""  # (0020,0013)
    protocol_name: str = ""  # (0018,1030)
    body_part: str = ""  # Body Part Examined (0018,0015)
    image_type: tuple[str, ...] = ()  # (0008,0008)
    manufacturer: str = ""  # (0008,0070)
    institution: str = ""  # (0008,0080)
    referring_physician: str = ""  # (0008,0090)
    frame_of_reference_uid: str = ""  # (0020,0052)
    rows: int = 0  # (0028,0010)
    columns: int = 0  # (0028,0011)
    frames: int = 1  # (0028,0008)
    orientation: tuple[float, ...] = ()  # Image Orientation (Patient) (0020,0037), 6 cosines, or empty
    position: tuple[float, ...] = ()  # Image Position (Patient) (0020,0032), 3 mm, or empty
    pixel_spacing: tuple[float, ...] = ()  # (0028,0030), row and column spacing in mm, or empty
    slice_thickness: float | None = None  # (0018,0050), mm
    contrast_agent: str = ""  # Contrast/Bolus Agent (0018,0010)
    device_uid: str = ""  # of contributing equipment item 99IHE 1630, set where an algorithm made this object


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One stored instance: header, content digest, and how it came."""

    header: Header
    sha256: Sha256  # of the dataset bytes as sent, without file meta information
    size: int  # bytes of the file in the spool
    file: str  # spool key
    calling_ae: AETitle  # who sent it
    address: str  # from where
    association_id: AssociationId  # in which association
    received_at: float  # seconds since the epoch


@dataclass(frozen=True, kw_only=True)
class Series:
    """The instances of one series that have arrived."""

    uid: SeriesUID
    instances: tuple[Instance, ...]  # sorted by SOP Instance UID

    @property
    def first(self) -> Header:
        """A header to read the series' own attributes from."""
        return self.instances[0].header

    def input_set(self) -> InputSetId:
        """Names exactly these instances with exactly this content."""
        lines = sorted(f"{i.header.sop_instance_uid} {i.sha256}" for i in self.instances)
        return InputSetId(hashlib.sha256("\n".join(lines).encode()).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Study:
    """All that has arrived under one Study Instance UID."""

    uid: StudyUID
    series: tuple[Series, ...]  # sorted by Series Instance UID

    @classmethod
    def of(cls, uid: StudyUID, instances: Iterable[Instance]) -> Study:
        """Groups instances into series."""
        groups: dict[SeriesUID, list[Instance]] = {}
        for instance in instances:
            groups.setdefault(instance.header.series_uid, []).append(instance)
        series = (
            Series(uid=key, instances=tuple(sorted(groups[key], key=lambda i: i.header.sop_instance_uid)))
            for key in sorted(groups)
        )
        return cls(uid=uid, series=tuple(series))

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Every instance, series by series."""
        return tuple(instance for series in self.series for instance in series.instances)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in Study (0008,0061), sorted."""
        return tuple(sorted({i.header.modality for i in self.instances if i.header.modality}))
