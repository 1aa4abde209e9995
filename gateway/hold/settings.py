"""What a site may say about when a study is complete."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from gateway.domain.units import parse_duration

Seconds = Annotated[float, BeforeValidator(parse_duration)]


class Hold(BaseModel):
    """How long to wait for more instances."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quiet: Seconds = 5.0
    """Release when nothing has come for so long and no association that carries the study is open."""

    association_is_study: bool = False
    """The senders put a whole study into one association: release as soon as it is released in good order."""

    limit: Seconds = 3600.0
    """Release at the latest so long after the last instance, whatever is still open."""

    @model_validator(mode="after")
    def _quiet_ends(self) -> Self:
        if self.quiet > self.limit:
            raise ValueError(f"quiet is longer than limit ({self.limit:g}s): every study would be called incomplete")
        return self
