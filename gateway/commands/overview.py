"""`hilum status`: which workers are there, which models are open, and what waits for what."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from gateway.commands.console import console
from gateway.commands.show import open_for_reading
from gateway.domain.states import JobState

_AT_MOST = 10_000  # jobs


def show_status(config: Path | None, as_json: bool) -> None:
    """Workers with their models, and jobs that run or wait."""
    ledger = open_for_reading(config)
    jobs = ledger.list_jobs(_AT_MOST, states=(JobState.QUEUED, JobState.RUNNING))
    names = {job["model_digest"]: job["model"] for job in ledger.list_jobs(_AT_MOST)}
    workers = [_worker(asdict(one), names) for one in ledger.workers()]
    waits = Counter(job["waits"] for job in jobs if job["state"] == JobState.QUEUED.value and job["waits"])
    found = {
        "workers": workers,
        "queued": sum(job["state"] == JobState.QUEUED.value for job in jobs),
        "running": sum(job["state"] == JobState.RUNNING.value for job in jobs),
        "waits": [{"reason": reason, "jobs": count} for reason, count in waits.most_common()],
    }
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def _worker(state: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    models = [{**one, "name": names.get(one["digest"], one["digest"][:12])} for one in state["models"]]
    return {**state, "models": models}


def _print(found: dict[str, Any]) -> None:
    out = console()
    table = Table(title=f"workers ({len(found['workers'])})", title_justify="left", box=None, pad_edge=False)
    for name in ("host", "devices", "memory MiB", "models open (MiB)", "opened"):
        table.add_column(name, overflow="fold")
    for one in found["workers"]:
        models = ", ".join(f"{model['name']} ({model['held_mib']})" for model in one["models"])
        table.add_row(one["host"], ", ".join(one["devices"]), str(one["memory_mib"]), models, str(one["opened"]))
    out.print(table)
    out.print(f"jobs: {found['running']} running, {found['queued']} queued")
    for item in found["waits"]:
        out.print(f"  {item['jobs']} wait: {item['reason']}", markup=False)
