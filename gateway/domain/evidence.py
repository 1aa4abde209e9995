"""What others than the sender's association tell of a study: how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.ids import SeriesUID


@dataclass(frozen=True, kw_only=True)
class SeriesCount:
    """A series as its source counts it."""

    series_uid: SeriesUID  # (0020,000E)
    modality: str  # (0008,0060)
    instances: int  # Number of Series Related Instances (0020,1209)


@dataclass(frozen=True, kw_only=True)
class SourceCount:
    """What the source of a study answers when it is asked how much it has (PS3.4 C.6.2, PS3.18 10.6)."""

    source: str  # its name in sentences, such as `PACS by C-FIND`
    asked_at: float  # seconds since the epoch
    instances: int = 0  # Number of Study Related Instances (0020,1208); 0 where it does not say
    series: tuple[SeriesCount, ...] = ()
    problem: str = ""  # why there is no answer; then nothing else is said

    def sentence(self) -> str:
        """What it says, without patient data."""
        if self.problem:
            return f"{self.source} gave no count ({self.problem})"
        total = self.instances or sum(one.instances for one in self.series)
        if not total:
            return f"{self.source} does not know the study"
        return f"{self.source} reports {total} instance{'' if total == 1 else 's'} in {len(self.series)} series"


@dataclass(frozen=True, kw_only=True)
class PerformedStep:
    """A Modality Performed Procedure Step (PS3.3 C.4.14) as far as it speaks of one study."""

    step_uid: str
    source: str  # calling AE title
    status: str  # `IN PROGRESS`, `COMPLETED` or `DISCONTINUED` (0040,0252)
    instances: tuple[str, ...] = ()  # SOP Instance UIDs that it lists, in order, each once

    def sentence(self) -> str:
        """What it says, without patient data."""
        said = f"MPPS of {self.source} {self.status.lower()}"
        if self.status == "IN PROGRESS":
            return said
        count = len(self.instances)
        return f"{said}, lists {count} instance{'' if count == 1 else 's'}"


Evidence = SourceCount | PerformedStep
