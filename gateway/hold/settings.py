"""What a site may say about when a study is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from gateway.domain.ids import AETitle
from gateway.domain.units import parse_duration
from gateway.tls import ClientTls

Seconds = Annotated[float, BeforeValidator(parse_duration)]
Witness = Literal["count", "mpps", "require"]
"""Evidence that can say that all is here."""


class Hold(BaseModel):
    """How long to wait for more instances."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quiet: Seconds = 5.0
    """Release when nothing has come for so long and no association that carries the study is open."""

    settle: Seconds = 0.3
    """Nothing must have come for so long before the source is asked, and before any evidence releases early."""

    trust: tuple[Witness, ...] = ("count", "mpps")
    """The evidence that is believed: it releases a study early, and holds it while it says that something is missing."""

    association_is_study: bool = False
    """The senders put a whole study into one association: release as soon as it is released in good order."""

    gap: Seconds = 15.0
    """How long to wait where slices seem to be missing in the middle of a series."""

    limit: Seconds = 3600.0
    """Release at the latest so long after the last instance, whatever is still open or missing."""

    at_limit: Literal["run", "quarantine"] = "run"
    """What becomes of a study that is still incomplete then: run with a flag on every result, or held for a person."""

    @model_validator(mode="after")
    def _quiet_ends(self) -> Self:
        if self.quiet > self.limit:
            raise ValueError(f"quiet is longer than limit ({self.limit:g}s): every study would be called incomplete")
        return self


class RuleHold(Hold):
    """How a rule waits."""

    require: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=64)] = ()
    """CEL conditions; for each of them the study must hold a series that meets it."""

    require_inputs: bool = False
    """And a series for each input that a model of the rule cannot do without, by its manifest."""


class DimseQuery(BaseModel):
    """A source that is asked by C-FIND, Study Root."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: Annotated[str, AfterValidator(AETitle)]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: ClientTls | None = None
    timeout: Annotated[Seconds, Field(gt=0)] = 5.0  # for the connection, and again for each answer


class WebQuery(BaseModel):
    """A source that is asked by QIDO-RS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]  # where /studies is below; no credentials
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None  # bearer token; read again for each question
    ca_file: Path | None = None
    timeout: Annotated[Seconds, Field(gt=0)] = 5.0  # without taking or giving a byte

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if self.user and self.token_file:
            raise ValueError("give either user and password_file, or token_file")
        return self


def _way(value: Any) -> str:
    return "web" if isinstance(value, WebQuery) or (isinstance(value, dict) and "url" in value) else "dimse"


Query = Annotated[Annotated[DimseQuery, Tag("dimse")] | Annotated[WebQuery, Tag("web")], Discriminator(_way)]
"""Whom to ask how much there is of a study."""
