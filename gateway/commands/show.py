"""`hilum studies`, `jobs`, `deliveries`, `explain`, `dead-letters`, `replay`: what happened, and again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gateway import bootstrap
from gateway.commands.console import console
from gateway.commands.status import served_at
from gateway.domain.errors import ConfigurationError, NotFound, ReportRefused
from gateway.domain.ids import JobId, StudyUID
from gateway.domain.job import Priority
from gateway.domain.states import IllegalTransition, JobState
from gateway.settings import read_settings
from gateway.store.ledger import SqlLedger
from gateway.web.links import viewer_link

_Columns = dict[str, Callable[[Any], str]]


def open_for_reading(config: Path | None) -> SqlLedger:
    """The site's ledger; raises ConfigurationError where there is none yet."""
    settings = read_settings(config)
    if settings.ledger.url == "sqlite" and not (settings.data_dir / "ledger.db").exists():
        raise ConfigurationError(
            f"no ledger in {settings.data_dir}: has `hilum serve` been started with this configuration?"
        )
    return bootstrap.make_ledger(settings)


def show_studies(config: Path | None, limit: int, as_json: bool) -> None:
    """Studies, newest first."""
    rows = open_for_reading(config).list_studies(limit)
    columns: _Columns = {
        "uid": str,
        "state": str,
        "instances": str,
        "last_stored_at": _time,
        "open_associations": str,
        "reason": str,
    }
    _print("studies", rows, columns, as_json)


def show_jobs(config: Path | None, limit: int, as_json: bool) -> None:
    """Jobs, newest first."""
    rows = open_for_reading(config).list_jobs(limit)
    columns: _Columns = {
        "id": str, "model": str, "state": str, "priority": _priority, "deadline": _time, "place": str, "stage": str,
        "fraction": _percent, "expected": _duration, "left": _duration, "waits": str, "attempts_failed": str, "attempts_lost": str,
        "created_at": _time, "finished_at": _time, "reason": str,
    }  # fmt: skip
    _print("jobs", rows, columns, as_json)


def show_deliveries(config: Path | None, limit: int, as_json: bool) -> None:
    """Deliveries, newest first, each with its story."""
    ledger = open_for_reading(config)
    _print("deliveries", _with_stories(ledger, _aged(ledger.list_deliveries(limit))), _DELIVERY, as_json)


def show_orders(config: Path | None, limit: int, as_json: bool) -> None:
    """What the EHR has ordered, and the messages that it has sent, newest first."""
    ledger = open_for_reading(config)
    orders, messages = ledger.list_orders(limit), ledger.list_messages(limit)
    if as_json:
        _json({"orders": orders, "messages": messages})
        return
    columns: _Columns = {
        "message": str, "at": _time, "control": str, "accession_number": str, "placer_number": str,
        "filler_number": str, "procedure": str, "priority": str, "studies": ", ".join,
    }  # fmt: skip
    _print("orders", orders, columns, False)
    _print("messages from the EHR", messages, _MESSAGE, False)


def release(config: Path | None, study_uid: str) -> str:
    """Lets a study's results go although they were held; returns a sentence."""
    reason = open_for_reading(config).waive(StudyUID(study_uid))
    return f"released by you: {reason}"


def show_dead_letters(config: Path | None, as_json: bool) -> None:
    """All that was given up or held back."""
    found = open_for_reading(config).dead_letters()
    if as_json:
        _json(found)
        return
    _print("quarantined studies", found["studies"], {"uid": str, "instances": str, "reason": str}, False)
    _print(
        "dead and quarantined jobs", found["jobs"], {"id": str, "study_uid": str, "state": str, "reason": str}, False
    )
    _print("undelivered", _aged(found["deliveries"]), _DEAD, False)
    _print(
        "conflicting instances", found["conflicts"], {"sop_instance_uid": str, "sha256": str, "calling_ae": str}, False
    )
    _print("held: order and images do not agree", found["held"], {"uid": str, "hold": str}, False)
    _print("messages that were not understood", found["messages"], _MESSAGE, False)


def explain(config: Path | None, study_uid: str, as_json: bool) -> None:
    """Everything about one study: what came, why it was released, what ran, what went where."""
    ledger = open_for_reading(config)
    found = ledger.explain(StudyUID(study_uid))
    found["deliveries"] = _with_stories(ledger, found["deliveries"])
    base = served_at(read_settings(config))
    for job in found["jobs"]:
        job["viewer"] = viewer_link(base, study_uid, (job["outcome"] or {}).get("objects", ()))
    if as_json:
        _json(found)
        return
    out = console()
    study = found["study"]
    out.print(f"[bold]Study {study['uid']}[/bold]: {study['state']}, {study['instances']} instances")
    out.print(f"  {study['reason']}", markup=False)
    series: _Columns = {
        "series_uid": str,
        "modality": str,
        "instances": str,
        "calling_ae": str,
        "first_at": _time,
        "last_at": _time,
    }
    _print("series", found["series"], series, False)
    if found["priors"]:
        priors: _Columns = {"job_id": str, "input": str, "study_date": str, "study_uid": str, "series_number": str}
        _print("priors", found["priors"], priors, False)
    _ehr(out, found["ehr"])
    _story(out, found["events"])
    for job in found["jobs"]:
        _measurements(out, job)
    _print("deliveries", _aged(found["deliveries"]), _DELIVERY, False)


def cancel(config: Path | None, job: str) -> str:
    """Ends a job; returns a sentence. Raises NotFound, and ConfigurationError for one that has ended."""
    try:
        open_for_reading(config).cancel_job(JobId(job))
    except IllegalTransition as error:
        raise ConfigurationError(f"job {job} neither waits nor runs: there is nothing to cancel") from error
    return "cancelled: where it runs, its worker ends the model at its next heartbeat"


def replay(config: Path | None, what: str, which: str) -> str:
    """Does a study's routing, a job or a delivery again; returns a sentence. `which` is an id, or `all` dead ones."""
    ledger = open_for_reading(config)
    dead = ledger.dead_letters()
    actions: dict[str, tuple[Callable[[Any], None], Sequence[Any]]] = {
        "study": (lambda uid: ledger.replay_study(StudyUID(uid)), [row["uid"] for row in dead["studies"]]),
        "job": (lambda job: ledger.replay_job(JobId(job)), [row["id"] for row in dead["jobs"]]),
        "delivery": (lambda number: ledger.replay_delivery(_number(number)), [row["id"] for row in dead["deliveries"]]),
        "message": (lambda number: ledger.replay_message(_number(number)), [row["id"] for row in dead["messages"]]),
    }
    if what not in actions:
        raise ConfigurationError(f"cannot replay a {what!r}: say study, job, delivery or message")
    act, everything = actions[what]
    chosen = everything if which == "all" else [which]
    outdated = 0
    for item in chosen:
        try:
            act(item)
        except ReportRefused:
            if which != "all":
                raise
            outdated += 1
    done = len(chosen) - outdated
    rest = f"; {outdated} left alone: a later edition of the same report has taken their place" if outdated else ""
    return f"{done} {what}{'' if done == 1 else 's'} will be done again by the running gateway{rest}"


def _number(text: Any) -> int:
    try:
        return int(text)
    except ValueError:
        raise NotFound(f"nothing is called {text!r}: deliveries and messages have numbers") from None


def _time(value: Any) -> str:
    return "" if value is None else datetime.fromtimestamp(float(value)).strftime("%Y-%m-%d %H:%M:%S")


def _priority(value: Any) -> str:
    return Priority(value).name.lower().replace("_", "-")


def _percent(value: Any) -> str:
    return f"{value:.0%}"


def _with_stories(ledger: SqlLedger, deliveries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    stories = ledger.stories([row["id"] for row in deliveries])
    return [{**row, "story": stories[row["id"]]} for row in deliveries]


def _lines(story: Sequence[dict[str, Any]]) -> str:
    """One line for each thing that happened to a delivery; where it went stands beside it already."""
    return "\n".join(
        f"{_time(event['at'])[11:]} {event['what']}: {event['detail'].partition(': ')[2]}" for event in story
    )


def _aged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """With `age`: how many seconds a delivery took, or has been on its way for."""
    now = time.time()
    return [
        row | {"age": (row["delivered_at"] or now) - row["created_at"] if row["created_at"] else None} for row in rows
    ]


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


_DELIVERY: _Columns = {
    "id": str, "destination": str, "role": str, "key": str, "state": str, "attempts": str, "age": _duration,
    "next_try": _time, "story": _lines,
}  # fmt: skip
_DEAD: _Columns = {**{name: show for name, show in _DELIVERY.items() if name != "story"}, "last_answer": str}


_MESSAGE: _Columns = {
    "id": str, "received_at": _time, "sender": str, "control_id": str, "kind": str, "state": str, "copies": str,
    "reason": str,
}  # fmt: skip


def _ehr(out: Console, ehr: dict[str, Any]) -> None:
    order = ehr.get("order")
    if order:
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in order.items() if value)
        out.print(f"[bold]order[/bold] by {ehr['matched_by']}:", end=" ")
        out.print(said, markup=False)
    if ehr.get("merges"):
        out.print(f"patient: {ehr['merges']} merges lead from the images' to the one of today")
    if ehr.get("reports"):
        out.print(f"reports of the radiologist: {', '.join(ehr['reports'])}")
    if ehr.get("mismatch"):
        held = "held" if ehr["held"] else "released by a person"
        out.print(f"[bold]{held}[/bold]: {ehr['mismatch']}")


def _story(out: Console, events: Sequence[dict[str, Any]]) -> None:
    table = Table(title="what happened", title_justify="left", box=None, pad_edge=False)
    for name in ("time", "after", "what", "detail"):
        table.add_column(name, overflow="fold")
    start = events[0]["at"] if events else 0.0
    for event in events:
        table.add_row(_time(event["at"]), f"+{event['at'] - start:.2f} s", event["what"], event["detail"])
    out.print(table)


def _measurements(out: Console, job: dict[str, Any]) -> None:
    outcome = job["outcome"] or {}
    out.print(f"[bold]job {job['id']}[/bold] {job['model']}: {job['state']} {job['reason']}")
    if job["state"] == JobState.QUEUED.value and job["waits"]:
        out.print(f"  waits: {job['waits']}", markup=False)
    if job["left"] is not None:
        out.print(f"  takes about {_duration(job['expected'])}; about {_duration(job['left'])} of that are to come")
    for item in outcome.get("measurements", []):
        out.print(f"  {item['name']['meaning']}: {item['value']:.1f} {item['unit']['value']}")
    for flag in outcome.get("flags", []):
        out.print(f"  flagged: {flag}", markup=False)
    out.print(f"  look at it: {job['viewer']}", markup=False, highlight=False, soft_wrap=True)
    times = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in outcome.get("timings", {}).items())
    if times:
        out.print(f"  {times}")


def _json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print(title: str, rows: Sequence[dict[str, Any]], columns: _Columns, as_json: bool) -> None:
    if as_json:
        _json(list(rows))
        return
    table = Table(title=f"{title} ({len(rows)})", title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.removesuffix("_at").replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if row[name] is None else show(row[name]) for name, show in columns.items()))
    console().print(table, markup=False)
