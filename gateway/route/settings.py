"""What a site may say about what to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.domain.units import parse_duration

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$")]


class ModelEntry(BaseModel):
    """A model under the site's own name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Annotated[str, Field(min_length=1)]  # `builtin:NAME` or a directory
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None  # the only build that may run


class ModelsTrust(BaseModel):
    """Whose signatures on bundles are believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Path, ...] = ()  # Ed25519 public keys, PEM
    require: bool = (
        True  # every bundle must be signed, those that ship with Hilum excepted; else only what is signed is checked
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.require and not self.keys:
            raise ValueError("require needs keys: name the public keys that may sign")
        return self


class Rule(BaseModel):
    """When to run which models, and where their results go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    when: Annotated[str, Field(min_length=1)]  # CEL over `study`, `series`, `sender` and `order`
    run: Annotated[tuple[Name, ...], Field(min_length=1)]
    deliver: tuple[Name, ...] = ()
    priority: Literal["stat", "urgent", "routine", "off-peak", "order"] = "routine"  # order: what the EHR's order says
    deadline: Annotated[float, BeforeValidator(parse_duration), Field(gt=0)] | None = None  # after the study is routed
    on_refusal: Literal["report", "envelope", "hold"] | None = (
        None  # of images that a model refuses; None: as its manifest says
    )
