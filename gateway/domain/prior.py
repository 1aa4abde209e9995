"""What makes images a prior of others: of the same patient, and made before. Pure.

Routing chooses by it, and a worker checks what it is given by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.domain.names import agree
from gateway.domain.study import Patient

_DATE = re.compile(r"\d{8}")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a study began, as its images say (Study Date (0008,0020), Study Time (0008,0030)); empty where they do not."""

    date: str  # YYYYMMDD
    time: str  # HHMMSS.FFFFFF, or its beginning

    @classmethod
    def of(cls, date: str, time: str) -> Moment:
        """As written, or as versions of DICOM before 3.0 wrote it (`YYYY.MM.DD`, `HH:MM:SS`); no date is an empty one."""
        day = date.strip().replace(".", "")
        return cls(date=day if _DATE.fullmatch(day) else "", time=time.strip().replace(":", ""))

    def before(self, other: Moment) -> bool:
        """Whether it is certainly the earlier one: both have a date; on one day, by as much of the time as both have."""
        if not self.date or not other.date or self.date != other.date:
            return bool(self.date) and self.date < other.date
        common = min(len(self.time), len(other.time))
        return self.time[:common] < other.time[:common]


def same_patient(first: Patient, second: Patient) -> bool:
    """Whether both have the same Patient ID of the same issuer, and neither name nor birth date speaks against it.

    Who has no Patient ID is nobody's equal.
    """
    return (
        bool(first.patient_id.strip())
        and first.patient_id.strip() == second.patient_id.strip()
        and first.issuer.strip() == second.issuer.strip()
        and agree(first.name, second.name)
        and len({_birth(first), _birth(second)} - {""}) < 2
    )


def _birth(patient: Patient) -> str:
    return patient.birth_date.replace(".", "").strip()
