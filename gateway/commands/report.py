"""`hilum confirm`: a person stands for a result."""

from __future__ import annotations

from pathlib import Path

from gateway.commands.show import open_for_reading
from gateway.domain.errors import ConfigurationError
from gateway.domain.ids import JobId
from gateway.domain.job import ReportKind

_LONGEST_NAME = 120  # characters


def confirm(config: Path | None, job: str, by: str) -> str:
    """Records a confirmation; returns a sentence. Raises NotFound, ReportRefused, ConfigurationError."""
    name = " ".join(by.split())
    if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigurationError("--by must be a name of at most 120 characters")
    number = open_for_reading(config).request_report(JobId(job), ReportKind.FINAL, by=name)
    return f"the result of job {job} is confirmed by {name}: the running gateway sends edition {number} of the report, final"
