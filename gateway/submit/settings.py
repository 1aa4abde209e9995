"""What a site may say about the broker and about leases."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.units import parse_duration

Seconds = Annotated[float, BeforeValidator(parse_duration)]


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
