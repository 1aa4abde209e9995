"""Where commands print for people."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """Standard output; wide where nobody looks, so that a pipe gets whole identifiers."""
    return Console(width=None if sys.stdout.isatty() else 200)
