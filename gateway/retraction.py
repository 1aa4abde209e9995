"""How a result is taken back: rejection notes to the archives that may have it, and a cancellation to the EHR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.errors import InvalidDicomError

from gateway.deliver.rejection import KEY_OBJECT_SELECTION, RejectionNote, RejectionReason, write_note
from gateway.deliver.retract import objects_to_withdraw, was_reported
from gateway.domain.errors import NotFound
from gateway.domain.ids import DestinationName, JobId
from gateway.domain.job import DeliveryDraft, Job, Payload
from gateway.domain.messages import ResultObject
from gateway.domain.ports import Clock, RetractionLedger, Spool
from gateway.domain.roles import REJECTION
from gateway.domain.states import JobState

_REPLACEABLE = frozenset(
    {JobState.RUNNING, JobState.READY, JobState.DELIVERING, JobState.DELIVERED, JobState.UNDELIVERED}
)
"""States in which a newer version takes a result back; what is quarantined or dead keeps its reason, but the report that
images were not processed is taken back too."""

_WITHOUT_RESULT = frozenset({JobState.QUARANTINED, JobState.DEAD})


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """What taking one result back means."""

    job: JobId
    study_uid: str
    model: str
    state: str  # of the job before
    objects: Mapping[DestinationName, tuple[str, ...]]  # SOP Instance UIDs that each destination is told about
    message: bool  # whether the EHR is told


@dataclass(frozen=True, kw_only=True)
class Retraction:
    """Takes results back."""

    ledger: RetractionLedger
    spool: Spool
    clock: Clock
    takes_notes: frozenset[DestinationName]  # destinations whose profile takes rejection notes
    cancel_report: Callable[[JobId, str], None]  # has the EHR told that the result of a job is cancelled, and why

    def replaced(self, job: Job) -> None:
        """A newer version is about to leave: the older one is withdrawn. The EHR's report is replaced, not cancelled."""
        before = job.supersedes
        while before is not None:
            earlier = self.ledger.job(before)
            reported = earlier.state is JobState.QUARANTINED and self.ledger.deliveries_of(earlier.id)
            if earlier.state in _REPLACEABLE or reported:
                why = f"Replaced by a newer version of the result, made from {_count(job)} images."
                self._retract(earlier, RejectionReason.QUALITY, why)
            # What never came to a result has left the one before it in force.
            before = earlier.supersedes if earlier.state in _WITHOUT_RESULT else None

    def recall(
        self, digest: str, since: float, reason: RejectionReason, *, dry_run: bool = False
    ) -> Sequence[Withdrawal]:
        """Withdraws every result of a model's build made since a time; says what it did, or would do.

        Raises NotFound, after all others are withdrawn, where a result's files cannot be read any more.
        """
        why = f"The AI model build {digest[:12]} is recalled: {reason.value[1].lower()}."
        done, lost = [], []
        for job in self.ledger.jobs_of_build(digest, since):
            withdrawal = self._foresee(job)
            if not dry_run:
                if withdrawal.message:
                    self.cancel_report(job.id, why)
                try:
                    self._retract(job, reason, why)
                except NotFound as error:
                    lost.append(error.message)
                    continue
            done.append(withdrawal)
        if lost:
            raise NotFound(f"{len(done)} results are withdrawn, but {'; '.join(lost)}")
        return done

    def _foresee(self, job: Job) -> Withdrawal:
        deliveries = self.ledger.deliveries_of(job.id)
        return Withdrawal(
            job=job.id,
            study_uid=job.draft.study_uid,
            model=job.draft.model,
            state=job.state.value,
            objects=objects_to_withdraw(deliveries, self.takes_notes),
            message=was_reported(deliveries),
        )

    def _retract(self, job: Job, reason: RejectionReason, why: str) -> None:
        self.ledger.retract(job.id, self._notices(job, reason, why), f"withdrawn: {why}")

    def _notices(self, job: Job, reason: RejectionReason, why: str) -> list[DeliveryDraft]:
        objects = {one.sop_instance_uid: one for one in (job.outcome.objects if job.outcome else ())}
        wanted = objects_to_withdraw(self.ledger.deliveries_of(job.id), self.takes_notes)
        notices = []
        for destination, keys in wanted.items():
            at = self.clock.now()
            note = self._note(job, [objects[key] for key in keys if key in objects], reason, why, at)
            notices.append(
                DeliveryDraft(
                    job_id=job.id,
                    destination=destination,
                    payload=Payload.OBJECT,
                    role=REJECTION,
                    key=note.sop_instance_uid,
                    file=self.spool.put(f"rejection {note.sop_instance_uid} {at}", [note.content]),
                    sop_class_uid=KEY_OBJECT_SELECTION,
                )
            )
        return notices

    def _note(
        self, job: Job, named: Sequence[ResultObject], reason: RejectionReason, why: str, at: float
    ) -> RejectionNote:
        """Patient and study are taken from the first of the objects that can be read."""
        for one in named:
            try:
                return write_note(job.id, named, self.spool.path(one.file), reason, why, at)
            except (OSError, InvalidDicomError, NotFound):
                continue
        raise NotFound(f"job {job.id} cannot be withdrawn: none of its results can be read any more")


def _count(job: Job) -> int:
    return job.outcome.source_instances if job.outcome else 0
