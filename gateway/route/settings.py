"""What a site may say about what to run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.units import parse_duration

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$")]


class ModelEntry(BaseModel):
    """A model under the site's own name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Annotated[str, Field(min_length=1)]  # `builtin:NAME` or a directory
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None  # the only build that may run


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
