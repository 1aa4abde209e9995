"""`hilum recall`: every result of a model's build is taken back."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.table import Table

from gateway import bootstrap
from gateway.commands.console import console
from gateway.commands.show import open_for_reading
from gateway.deliver.rejection import RejectionReason
from gateway.domain.errors import ConfigurationError, NotFound
from gateway.retraction import Withdrawal
from gateway.settings import read_settings

_DIGEST = re.compile(r"[0-9a-f]{8,64}")


def recall(config: Path | None, digest: str, since: str | None, reason: str, dry_run: bool, as_json: bool) -> None:
    """Withdraws results and says which; the running gateway tells archives and EHR.

    Raises ConfigurationError for arguments that cannot be meant, NotFound for a build that no job was ever made for.
    """
    if not _DIGEST.fullmatch(digest.lower()):
        raise ConfigurationError(f"{digest!r} is no model digest: give 8 to 64 of its hexadecimal digits")
    why = {"quality": RejectionReason.QUALITY, "safety": RejectionReason.SAFETY}.get(reason)
    if why is None:
        raise ConfigurationError(f"no reason is called {reason!r}: say quality or safety")
    start = _moment(since)
    ledger = open_for_reading(config)
    if not ledger.has_build(digest.lower()):
        raise NotFound(f"no job was ever made for a model build {digest}: `hilum jobs --json` shows model_digest")
    settings = read_settings(config)
    retraction = bootstrap.make_retraction(settings, ledger, bootstrap.make_spool(settings))
    done = retraction.recall(digest.lower(), start, why, dry_run=dry_run)
    if as_json:
        results = [dataclasses.asdict(one) for one in done]
        print(json.dumps({"dry_run": dry_run, "reason": reason, "withdrawn": results}, indent=2))
    else:
        _show(done, dry_run)


def _moment(since: str | None) -> float:
    if since is None:
        return 0.0
    try:
        return datetime.fromisoformat(since).timestamp()
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"--since {since!r} is no date or time: write 2026-11-24 or 2026-11-24T08:00"
        ) from None


def _show(done: Sequence[Withdrawal], dry_run: bool) -> None:
    table = Table(
        title=f"{len(done)} results {'would be ' if dry_run else ''}withdrawn", title_justify="left", box=None
    )
    for name in ("job", "study", "model", "was", "objects", "EHR"):
        table.add_column(name, overflow="fold")
    for one in done:
        objects = ", ".join(f"{len(keys)} in {name}" for name, keys in one.objects.items()) or "none"
        table.add_row(one.job, one.study_uid, one.model, one.state, objects, "told" if one.message else "")
    out = console()
    out.print(table)
    if done and not dry_run:
        out.print(
            "The running gateway tells archives and EHR. The model itself stays configured: take it out of the rules."
        )
