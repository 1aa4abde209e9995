"""Logs: one JSON line for each event on stderr, or readable lines on a terminal. Ids only, never patient data."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# Libraries that print peers' text, or more than anybody reads.
_QUIET = ("pynetdicom", "celery", "kombu", "amqp", "alembic", "sqlalchemy", "httpx2", "httpcore2", "urllib3")


def configure(*, json: bool | None = None) -> None:
    """Sets logging up for a process; JSON unless stderr is a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # tracebacks with peers' text in them


def log(**context: Any) -> Any:
    """A logger; the event's name says what happened, the keywords say to what."""
    return structlog.get_logger(**context)
