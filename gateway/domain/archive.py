"""What is held, seen from outside: sources and results as DICOMweb finds them (PS3.18 chapter 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.domain.ids import InstanceUID, JobId, SeriesUID, StudyUID
from gateway.domain.study import Header


@dataclass(frozen=True, kw_only=True)
class Held:
    """One instance that can be retrieved."""

    header: Header
    file: str  # spool key
    size: int  # bytes of the file
    sha256: str  # of what it holds: the same digest, the same content
    job_id: str = ""  # of the job that made it; empty for what was received


@dataclass(frozen=True, kw_only=True)
class HeldSeries:
    """One series that can be retrieved."""

    header: Header  # of one of its instances, for the attributes of patient, study and series
    instances: int
    sop_classes: tuple[str, ...]
    file: str  # spool key of the same instance, for attributes that the header does not have


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """A result object that is not indexed yet."""

    job_id: JobId
    file: str  # spool key
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One matching attribute of a search (PS3.4 C.2.2.2)."""

    field: str  # a field of `SEARCHABLE`
    values: tuple[str, ...] = ()  # any of them; with wildcards where `wildcard`
    wildcard: bool = False  # `*` and `?` have their meaning
    low: str = ""  # range matching: from here
    high: str = ""  # to here, both included; empty for an open end


SEARCHABLE = {
    "study": (
        "study_uid", "patient_id", "patient_name", "birth_date", "sex", "accession_number", "study_id", "study_date",
        "study_time", "study_description", "referring_physician", "modalities_in_study",
    ),
    "series": ("series_uid", "modality", "series_description", "series_number", "body_part", "protocol_name"),
    "instance": ("sop_instance_uid", "sop_class_uid", "instance_number"),
}  # fmt: skip
"""Fields that a condition may name, by level; a lower level knows those above it too."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search at one level."""

    conditions: tuple[Condition, ...] = ()
    limit: int = 1000
    offset: int = 0


class Archive(Protocol):
    """Everything held, to search and to retrieve. Results show once their job is finished and nobody holds it back."""

    def find_studies(self, search: Search) -> tuple[Sequence[Sequence[HeldSeries]], int]:
        """Each study as its series, newest study date first; and how many studies fit in all."""
        ...

    def find_series(self, search: Search) -> tuple[Sequence[HeldSeries], int]:
        """Series; and how many fit in all."""
        ...

    def find_instances(self, search: Search) -> tuple[Sequence[Held], int]:
        """Instances; and how many fit in all."""
        ...

    def held(
        self, study: StudyUID, series: SeriesUID | None = None, instance: InstanceUID | None = None
    ) -> Sequence[Held]:
        """What there is of a study, of one of its series, or of one instance; nothing where it is not held."""
        ...

    def unindexed(self) -> Sequence[ResultFile]:
        """Result objects whose header nobody has read yet."""
        ...

    def index_results(self, job: JobId, results: Sequence[Held]) -> None:
        """Remembers the headers of a job's results."""
        ...

    def close_lost(self, address: str) -> int:
        """Ends, as lost, what a process that is gone had open; `address` is how the senders' begin. Returns how many."""
        ...
