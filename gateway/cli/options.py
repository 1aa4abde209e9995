"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="HILUM_CONFIG", help="hilum.yaml of the site; without it, all defaults."),
]
SiteConfig = Annotated[Path, typer.Option("--config", "-c", envvar="HILUM_CONFIG", help="hilum.yaml of the site.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(help="How many, newest first.", min=1)]
