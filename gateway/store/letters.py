"""The ledger's part for messages that the EHR has made wrong: which there are, and what takes their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, or_, select, update

from gateway.domain.context import Subject
from gateway.domain.ids import DestinationName, JobId, StudyUID
from gateway.domain.job import DeliveryDraft, Letter, Payload
from gateway.domain.messages import revive
from gateway.domain.ports import Clock
from gateway.domain.states import DeliveryEvent, DeliveryState
from gateway.store import progress, rows, schema
from gateway.store.engine import reading, writing

_DELIVERIES, _JOBS, _EDITIONS = schema.deliveries, schema.jobs, schema.editions
_UNSEEN = (DeliveryState.HELD.value, DeliveryState.WAITING.value)
_STAYS = (*_UNSEEN, DeliveryState.STORED.value, DeliveryState.DEAD.value)
_MOVING = (*_UNSEEN, DeliveryState.SENDING.value, DeliveryState.STORED.value)


class Correspondence:
    """Implements `gateway.domain.ports.LetterLedger`."""

    engine: Any
    clock: Clock

    def letters_about(self, study: StudyUID) -> Sequence[Letter]:
        """The latest message about each job of a study for each destination, and whatever before it has not ended."""
        of_study = select(_JOBS.c.id).where(_JOBS.c.study_uid == study)
        messages = (_DELIVERIES.c.job_id.in_(of_study), _DELIVERIES.c.payload == Payload.MESSAGE.value)
        latest = (
            select(func.max(_DELIVERIES.c.id))
            .where(*messages)
            .group_by(_DELIVERIES.c.job_id, _DELIVERIES.c.destination)
        )
        wanted = or_(_DELIVERIES.c.id.in_(latest), _DELIVERIES.c.state.in_(_MOVING))
        query = select(_DELIVERIES).where(*messages, wanted).order_by(_DELIVERIES.c.id)
        replaced = (
            select(_JOBS.c.supersedes)
            .join(_DELIVERIES, _DELIVERIES.c.job_id == _JOBS.c.id)
            .where(_JOBS.c.study_uid == study, _JOBS.c.supersedes.is_not(None))
        )
        asked = select(_EDITIONS.c.job_id).where(_EDITIONS.c.job_id.in_(of_study), _EDITIONS.c.state == "asked")
        with reading(self.engine) as connection:
            found = connection.execute(query).all()
            settled = {*connection.execute(replaced).scalars(), *connection.execute(asked).scalars()}
        last = {(row.job_id, row.destination): row.id for row in found}
        return [
            _letter(row, row.job_id in settled, last[row.job_id, row.destination] == row.id)
            for row in found
            if row.about and "subject" in row.about
        ]

    def rewrite(self, delivery: int, draft: DeliveryDraft) -> bool:
        """A message that nobody has seen says something else; False, and nothing done, where it has been sent since."""
        unseen = (_DELIVERIES.c.id == delivery, _DELIVERIES.c.state.in_(_UNSEEN), _DELIVERIES.c.attempts == 0)
        about = None if draft.subject is None else rows.about_values(draft.subject, draft.edition)
        values = {"file": draft.file, "about": about, "patient_key": draft.patient_key}
        with writing(self.engine) as connection:
            done = connection.execute(update(_DELIVERIES).where(*unseen).values(**values))
        return bool(done.rowcount)

    def withdraw(self, delivery: int, why: str) -> bool:
        """A message does not go again; False, and nothing done, for one that has arrived or is being sent."""
        now = self.clock.now()
        with writing(self.engine) as connection:
            row = connection.execute(select(_DELIVERIES).where(_DELIVERIES.c.id == delivery)).one()
            if row.state not in _STAYS:
                return False
            progress.move(connection, row, DeliveryEvent.WITHDRAWN)
            progress.tell(connection, row, DeliveryEvent.WITHDRAWN, why, now)
            progress.follow_up(connection, row.job_id, now)
        return True


def _letter(row: Any, settled: bool, latest: bool) -> Letter:
    return Letter(
        delivery_id=row.id,
        key=row.key,
        latest=latest,
        job_id=JobId(row.job_id),
        destination=DestinationName(row.destination),
        edition=row.about["edition"],
        state=DeliveryState(row.state),
        attempts=row.attempts,
        subject=revive(Subject, row.about["subject"]),
        settled=settled,
    )
