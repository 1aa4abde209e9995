"""Rows of the ledger to records and back."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from gateway.domain.context import Fact, Merge, Order, Person, Report, StudyContext, Subject
from gateway.domain.ids import (
    AETitle,
    AssociationId,
    DestinationName,
    InputSetId,
    JobId,
    ModelName,
    SeriesUID,
    Sha256,
    StudyUID,
)
from gateway.domain.job import Delivery, DeliveryDraft, Job, JobDraft, NamedSeries, OnRefusal, Payload, Priority
from gateway.domain.messages import Outcome, revive, to_json
from gateway.domain.states import (
    DeliveryState,
    JobEvent,
    JobState,
    StudyEvent,
    StudyState,
    next_job_state,
    next_study_state,
)
from gateway.domain.study import Header, Instance
from gateway.store import schema


def instance_values(instance: Instance) -> dict[str, Any]:
    """Column values of an instance."""
    return {
        "sop_instance_uid": instance.header.sop_instance_uid,
        "series_uid": instance.header.series_uid,
        "study_uid": instance.header.study_uid,
        "sha256": instance.sha256,
        "size": instance.size,
        "file": instance.file,
        "header": vars(instance.header) | {"patient": vars(instance.header.patient)},
        "calling_ae": instance.calling_ae,
        "address": instance.address,
        "association_id": instance.association_id,
        "received_at": instance.received_at,
    }


def to_header(value: Any) -> Header:
    """A header as its JSON column has it."""
    header: Header = revive(Header, value)
    return header


def to_instance(row: Row[Any]) -> Instance:
    """An instance's row as a record."""
    return Instance(
        header=to_header(row.header),
        sha256=Sha256(row.sha256),
        size=row.size,
        file=row.file,
        calling_ae=AETitle(row.calling_ae),
        address=row.address,
        association_id=AssociationId(row.association_id),
        received_at=row.received_at,
    )


def draft_values(draft: JobDraft, now: float) -> dict[str, Any]:
    """Column values of a job that is new."""
    values = dataclasses.asdict(draft)
    due = values.pop("due_in")
    return values | {
        "deliver": list(draft.deliver),
        "flags": list(draft.flags),
        "priority": int(draft.priority),
        "on_refusal": draft.on_refusal.value,
        "deadline": None if due is None else now + due,
        "created_at": now,
    }


def to_job(row: Row[Any]) -> Job:
    """A job's row as a record."""
    draft = JobDraft(
        id=JobId(row.id),
        study_uid=StudyUID(row.study_uid),
        series_uid=SeriesUID(row.series_uid),
        input_set=InputSetId(row.input_set),
        model=ModelName(row.model),
        model_digest=Sha256(row.model_digest),
        rule=row.rule,
        deliver=tuple(DestinationName(name) for name in row.deliver),
        priority=Priority(row.priority),
        flags=tuple(row.flags),
        on_refusal=OnRefusal(row.on_refusal),
        sender=row.sender,
        due_in=None if row.deadline is None else row.deadline - row.created_at,
        device=row.device,
        voxels=row.voxels,
        inputs=tuple(revive(NamedSeries, one) for one in row.inputs or ()),
    )
    return Job(
        draft=draft,
        state=JobState(row.state),
        fence=row.fence,
        attempts_failed=row.attempts_failed,
        attempts_lost=row.attempts_lost,
        reason=row.reason,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        supersedes=row.supersedes,
        outcome=revive(Outcome, row.outcome) if row.outcome else None,
    )


def outcome_json(outcome: Outcome) -> Any:
    """An outcome as a JSON column takes it."""
    return json.loads(to_json(outcome))


def about_values(subject: Subject, edition: int) -> dict[str, Any]:
    """Whom and what a message names, and which edition of the report it is, as a JSON column takes it."""
    return {"subject": dataclasses.asdict(subject), "edition": edition}


def delivery_values(draft: DeliveryDraft, now: float) -> dict[str, Any]:
    """Column values of a delivery that is new."""
    return {
        "job_id": draft.job_id,
        "destination": draft.destination,
        "payload": draft.payload.value,
        "role": draft.role,
        "key": draft.key,
        "file": draft.file,
        "sop_class_uid": draft.sop_class_uid,
        "fallbacks": [_draft_json(one) for one in draft.fallbacks],
        "state": (DeliveryState.HELD if draft.held else DeliveryState.WAITING).value,
        "next_try": now,
        "created_at": now,
        "patient_key": draft.patient_key,
        "report_key": draft.report_key,
        "about": None if draft.subject is None else about_values(draft.subject, draft.edition),
    }


def _draft_json(draft: DeliveryDraft) -> dict[str, Any]:
    """A draft as a JSON column takes it; its own fallbacks are inside."""
    inner = [_draft_json(one) for one in draft.fallbacks]
    return dataclasses.asdict(draft) | {"payload": draft.payload.value, "fallbacks": inner}


def _to_drafts(values: Sequence[Mapping[str, Any]]) -> tuple[DeliveryDraft, ...]:
    return tuple(
        DeliveryDraft(**{**value, "payload": Payload(value["payload"]), "fallbacks": _to_drafts(value["fallbacks"])})
        for value in values
    )


def to_delivery(row: Row[Any]) -> Delivery:
    """A delivery's row as a record."""
    draft = DeliveryDraft(
        job_id=JobId(row.job_id),
        destination=DestinationName(row.destination),
        payload=Payload(row.payload),
        role=row.role,
        key=row.key,
        file=row.file,
        sop_class_uid=row.sop_class_uid,
        fallbacks=_to_drafts(row.fallbacks or ()),
        patient_key=row.patient_key,
        report_key=row.report_key,
    )
    return Delivery(
        id=row.id,
        draft=draft,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        first_try=row.first_try,
        next_try=row.next_try,
        last_answer=row.last_answer,
        stored_at=row.stored_at,
        delivered_at=row.delivered_at,
        checks=row.checks,
        transaction=row.transaction_uid or "",
        fence=row.fence,
        application=_application(row.about),
    )


def _application(about: dict[str, Any] | None) -> tuple[str, str] | None:
    said = (about or {}).get("application")
    return (said[0], said[1]) if said else None


_FACT_KINDS: dict[str, type] = {"person": Person, "order": Order, "merge": Merge, "report": Report}


def fact_kind(kind: type) -> str:
    """What a kind of fact is called in the ledger."""
    return next(name for name, known in _FACT_KINDS.items() if known is kind)


def fact_values(fact: Fact) -> dict[str, Any]:
    """Column values of a fact."""
    return {
        "at": fact.at,
        "tie": fact.tie,
        "kind": fact_kind(type(fact.body)),
        "body": dataclasses.asdict(fact.body),
    }


def to_fact(row: Row[Any]) -> Fact:
    """A fact's row as a record."""
    return Fact(at=row.at, tie=row.tie, body=revive(_FACT_KINDS[row.kind], row.body))


def context_values(context: StudyContext) -> dict[str, Any]:
    """A study's context as a JSON column takes it."""
    return dataclasses.asdict(context)


def to_context(value: Any) -> StudyContext | None:
    """What `context_values` made of a context; nothing where there is none."""
    return None if value is None else typing.cast(StudyContext, revive(StudyContext, value))


def tell(
    connection: Connection, at: float, study: str, what: str, detail: str = "", job: str = "", delivery: int = 0
) -> None:
    """Adds a line to a study's story."""
    values = {"at": at, "study_uid": study, "job_id": job, "what": what, "detail": detail, "delivery_id": delivery}
    connection.execute(insert(schema.events).values(**values))


def move_study(connection: Connection, uid: str, event: StudyEvent, **values: Any) -> StudyState:
    """Moves a study by the table; raises IllegalTransition."""
    table = schema.studies
    query = select(table.c.state).where(table.c.uid == uid).with_for_update()
    state = StudyState(connection.execute(query).scalar_one())
    after = next_study_state(state, event)
    connection.execute(update(table).where(table.c.uid == uid).values(state=after.value, **values))
    return after


def move_job(connection: Connection, row: Row[Any], event: JobEvent, **values: Any) -> JobState:
    """Moves a job by the table; raises IllegalTransition. How far it was in the state before is over."""
    after = next_job_state(JobState(row.state), event)
    values |= {"state": after.value, "stage": "", "fraction": None}
    connection.execute(update(schema.jobs).where(schema.jobs.c.id == row.id).values(**values))
    return after
