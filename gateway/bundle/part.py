"""What all parts of a manifest are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from gateway.domain.messages import Code

Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]


class Part(BaseModel):
    """Knows its own keys only, and does not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CodeValue(Part):
    """A coded concept (PS3.3 8.8)."""

    value: Annotated[str, Field(min_length=1, max_length=64)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]

    def code(self) -> Code:
        """As the messages carry it."""
        return Code(value=self.value, scheme=self.scheme, meaning=self.meaning)


class Range(Part):
    """A closed interval."""

    min: FiniteFloat
    max: FiniteFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self

    def holds(self, value: float) -> bool:
        """Whether the value lies inside."""
        return self.min <= value <= self.max


class Inside(Part):
    """Names a file of the bundle."""

    @staticmethod
    def check(file: str, what: str) -> None:
        """Raises ValueError for a path that leads out of the bundle."""
        path = Path(file)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{what} must lie inside the bundle")
