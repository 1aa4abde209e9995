"""The part of a manifest that makes one answer of those of several models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.bundle.part import Name, Part

Weight = Annotated[float, Field(gt=0, le=1)]


class FusedPart(Part):
    """One of the models."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,31}$")]  # as rules and results call it
    run: Name  # the name in its manifest
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]  # of the only build that is meant
    weight: Weight | None = None  # of all parts or of none; they sum to 1
    missing: Literal["refuse", "leave_out"] = "refuse"  # where it has no series, or refuses its images
    segments: Mapping[int, tuple[int, ...]] = Field(
        default_factory=dict
    )  # number here -> its own numbers; without it those of the same codes


class Fusion(Part):
    """Which models answer, and how one answer comes of theirs."""

    parts: Annotated[tuple[FusedPart, ...], Field(min_length=2, max_length=8)]
    combine: Literal["mean", "vote", "staple", "rules"] = "mean"
    rules: tuple[str, ...] = ()  # CEL over `parts`; one for each finding or value, or one that names the part to take
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.0  # least that any two parts must agree
    below: Literal["refuse", "flag"] = "flag"  # what to do where they do not

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if len({part.name for part in self.parts}) < len(self.parts):
            raise ValueError("each of `parts` needs a name of its own")
        if (self.combine == "rules") != bool(self.rules):
            raise ValueError("`rules` are for combine: rules, which needs them")
        check_weights([part.weight for part in self.parts], self.combine)
        if self.combine == "rules" and self.agreement:
            raise ValueError("`agreement` is for parts that answer the same question, not for combine: rules")
        return self

    def check_output(self, kind: str, numbers: int, *, plain: bool) -> None:
        """Raises ValueError where an answer of this kind, with so many findings or values, cannot be made of parts.

        Not ``plain`` is one about single images, or whose segments overlap.
        """
        if kind == "detection" or not plain:
            raise ValueError("a fusion is a segmentation without overlaps, or numbers about a series or a study")
        if numbers and self.combine in ("vote", "staple"):
            raise ValueError("numbers are combined by mean or rules: vote and staple are for labels")
        if kind == "regression" and self.agreement:
            raise ValueError("`agreement` is for labels and probabilities")
        asked = numbers or 1
        if self.combine == "rules" and len(self.rules) != asked:
            raise ValueError(
                f"{asked} rules are needed: one for each finding or value, or one that names the part to take"
            )


def check_weights(weights: Sequence[float | None], combine: str) -> None:
    """Raises ValueError for weights that some have and some have not, that do not sum to 1, or that nothing asks for."""
    given = [weight for weight in weights if weight is not None]
    if not given:
        return
    if combine not in ("mean", "vote"):
        raise ValueError(f"a weight is for combine: mean or vote; {combine} finds its own")
    if len(given) < len(weights):
        raise ValueError("a weight is for all or for none")
    if not math.isclose(sum(given), 1.0, abs_tol=1e-6):
        raise ValueError(f"the weights sum to {sum(given):g}, not to 1")
