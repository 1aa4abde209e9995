"""The ledger's part for evidence: what others say about a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from gateway.domain.evidence import Evidence, PerformedStep, SourceCount
from gateway.domain.ids import AETitle, StudyUID
from gateway.domain.messages import revive
from gateway.domain.ports import Clock
from gateway.store import rows, schema
from gateway.store.engine import reading, writing

_EVIDENCE, _STEPS = schema.evidence, schema.performed_steps
_ASSOCIATIONS, _LINKS = schema.associations, schema.study_associations
_KINDS: dict[str, type[Evidence]] = {"count": SourceCount, "mpps": PerformedStep}


class EvidenceRows:
    """Implements `gateway.domain.ports.EvidenceLedger` and `StepLedger`."""

    engine: Any
    clock: Clock

    def add_evidence(self, study: StudyUID, evidence: Evidence) -> None:
        """Writes down what somebody says about a study; its story is told only what is new."""
        with writing(self.engine) as connection:
            add_evidence(connection, self.clock.now(), study, evidence)

    def evidence(self, study: StudyUID) -> Sequence[Evidence]:
        """All that was said about a study, in the order in which it came."""
        with reading(self.engine) as connection:
            return _all(connection, study)

    def senders(self, study: StudyUID) -> Sequence[tuple[AETitle, str]]:
        """Calling AE title and address of everybody who has sent instances of it."""
        query = (
            select(_ASSOCIATIONS.c.calling_ae, _ASSOCIATIONS.c.address)
            .join(_LINKS, _LINKS.c.association_id == _ASSOCIATIONS.c.id)
            .where(_LINKS.c.study_uid == study)
            .distinct()
        )
        with reading(self.engine) as connection:
            return [(AETitle(row.calling_ae), row.address) for row in connection.execute(query).all()]

    def own_series(self, study: StudyUID) -> frozenset[str]:
        """Series Instance UIDs of results that Hilum made for it."""
        query = select(schema.jobs.c.outcome).where(schema.jobs.c.study_uid == study)
        with reading(self.engine) as connection:
            outcomes = connection.execute(query).scalars().all()
        return frozenset(item["series_uid"] for outcome in outcomes if outcome for item in outcome["objects"])

    def add_step(self, step: PerformedStep, studies: Sequence[StudyUID]) -> bool:
        """Keeps a new step, and what it says as evidence about its studies; False where there is one of this UID."""
        now = self.clock.now()
        values = {
            "uid": step.step_uid,
            "calling_ae": step.source,
            "status": step.status,
            "studies": list(studies),
            "instances": list(step.instances),
            "created_at": now,
            "changed_at": now,
        }
        with writing(self.engine) as connection:
            if connection.execute(select(_STEPS.c.uid).where(_STEPS.c.uid == step.step_uid)).first():
                return False
            connection.execute(insert(_STEPS).values(**values))
            for study in studies:
                add_evidence(connection, now, study, step)
        return True

    def step(self, uid: str) -> PerformedStep | None:
        """A step as it was last said."""
        with reading(self.engine) as connection:
            row = connection.execute(select(_STEPS).where(_STEPS.c.uid == uid)).one_or_none()
        return _to_step(row) if row else None

    def change_step(self, before: PerformedStep, after: PerformedStep) -> bool:
        """Keeps what a step says now, and tells its studies; False where it is no longer as it was before."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            query = select(_STEPS).where(_STEPS.c.uid == before.step_uid).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None or _to_step(row) != before:
                return False
            values = {"status": after.status, "instances": list(after.instances), "changed_at": now}
            connection.execute(update(_STEPS).where(_STEPS.c.uid == before.step_uid).values(**values))
            for study in row.studies:
                add_evidence(connection, now, StudyUID(study), after)
        return True


def add_evidence(connection: Connection, now: float, study: StudyUID, evidence: Evidence) -> None:
    """Adds a row, and a line to the study's story where it says something new."""
    before = {one.sentence() for one in _all(connection, study)[-1:]}
    kind = next(name for name, cls in _KINDS.items() if isinstance(evidence, cls))
    content = dataclasses.asdict(evidence)
    connection.execute(insert(_EVIDENCE).values(study_uid=study, at=now, kind=kind, content=content))
    if evidence.sentence() not in before:
        rows.tell(connection, now, study, "evidence", evidence.sentence())


def _to_step(row: Row[Any]) -> PerformedStep:
    return PerformedStep(step_uid=row.uid, source=row.calling_ae, status=row.status, instances=tuple(row.instances))


def _all(connection: Connection, study: StudyUID) -> list[Evidence]:
    query = select(_EVIDENCE).where(_EVIDENCE.c.study_uid == study).order_by(_EVIDENCE.c.id)
    return [revive(_KINDS[row.kind], row.content) for row in connection.execute(query).all()]
