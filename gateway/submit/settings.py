"""What a site may say about the broker and about leases."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.domain.job import Priority
from gateway.domain.units import parse_duration

_HOURS = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"

Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


class BrokerSettings(BaseModel):
    """The doorbell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern=r"^(embedded|rediss?://.+|redis\+socket://.+|unix://.+)$")] = "embedded"


class JobSettings(BaseModel):
    """How jobs are leased to workers, and how often they are tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease: Seconds = 60.0  # a worker that says nothing for so long has lost its job
    heartbeat: Seconds = 15.0
    reconcile: Seconds = 15.0  # how often lost leases and unheard rings are looked for
    knock: Seconds = 5.0  # how often an idle worker looks for itself
    max_failed: Annotated[int, Field(ge=1)] = 3  # attempts that the model ended
    max_lost: Annotated[int, Field(ge=1)] = 10  # attempts that the machine ended
    off_peak: Annotated[str, Field(pattern=_HOURS)] | None = (
        None  # when off-peak jobs run, local time; None: at any time
    )
    devices: Annotated[tuple[Literal["cuda", "mps", "cpu"], ...], Field(min_length=1)] | None = None
    """What workers of this configuration have; None: a worker looks for itself."""

    stranded_after: Seconds = 3600.0  # how long a job waits for a device or for memory that no worker has
    memory_mib: Annotated[int, Field(ge=256)] | None = None
    """What the models of one worker may hold together; None: what the machine or its container has free."""

    @model_validator(mode="after")
    def _heartbeat_keeps_the_lease(self) -> Self:
        if self.heartbeat * 2 > self.lease:
            raise ValueError(f"heartbeat ({self.heartbeat:g}s) must be at most half of lease ({self.lease:g}s)")
        return self

    def least_priority(self, clock: time) -> Priority:
        """What may run at this time of the day."""
        if self.off_peak is None:
            return Priority.OFF_PEAK
        begin, end = (time.fromisoformat(part) for part in self.off_peak.split("-"))
        inside = begin <= clock < end if begin <= end else clock >= begin or clock < end
        return Priority.OFF_PEAK if inside else Priority.ROUTINE
