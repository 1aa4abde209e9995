"""The way of a study, told once: receive -> hold -> route -> submit ~> workers ~> deliver -> report.

`gateway.receive` puts instances into the ledger; from there on each step here reads what waits in the ledger, asks the
stage's pure module what to do, and writes that down in one transaction. A step that is interrupted is simply done
again: state is in the ledger only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.deliver import plan
from gateway.domain.errors import ConfigurationError, MessageInvalid
from gateway.domain.ids import DestinationName, JobId, ModelName
from gateway.domain.job import DeliveryDraft, Edition, Job, Payload
from gateway.domain.ports import Broker, Ledger, Spool
from gateway.domain.study import Header, Series
from gateway.hold import assembly
from gateway.hold.holder import Holder
from gateway.observe.logs import log
from gateway.route import selection
from gateway.submit.jobkey import job_key


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """What goes to an EHR."""

    content: bytes
    role: str  # `oru`, `mdm`, `fhir`
    patient_key: str  # digest of whom it is about
    report_key: str  # of what report it is an edition


Compose = Callable[[Job, Header, Edition, str], WrittenReport]
"""Writes an edition of the report about a job for one EHR destination: the source's header, the edition, the control id;
raises MessageInvalid."""

_RING_BACK_OFF = 15.0  # seconds; doubles for a job that stays queued
_RINGS_AT_ONCE = 20


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Moves studies and jobs from stage to stage."""

    ledger: Ledger
    spool: Spool
    broker: Broker
    rules: Sequence[selection.RoutingRule]
    models: Mapping[ModelName, selection.Model]
    holder: Holder
    roles: Mapping[DestinationName, frozenset[str]]  # what each PACS destination takes
    fallbacks: Mapping[DestinationName, plan.Fallbacks]  # and what it is sent instead of what it does not take
    messages: Mapping[DestinationName, Compose]  # how each EHR destination is written to

    @property
    def next_look(self) -> float:
        """When time alone may next make something due, in seconds since the epoch."""
        return self.holder.next_look

    def advance(self) -> None:
        """One round through every stage."""
        self.release_due()
        self.route_complete()
        self.ring()
        self.plan_ready()
        self.report_again()

    def release_due(self) -> None:
        """Hold: studies whose evidence says that they are complete."""
        for record, verdict in self.holder.verdicts():
            if isinstance(verdict, assembly.Release):
                if self.ledger.release(record.uid, record.revision, verdict.reason, verdict.flags):
                    log(stage="hold").info("study released", study_uid=record.uid, reason=verdict.reason)
            elif isinstance(verdict, assembly.Quarantine):
                self.ledger.quarantine_study(record.uid, record.revision, verdict.reason, verdict.flags)

    def route_complete(self) -> None:
        """Route: complete studies to jobs, or to none and why."""
        for record in self.ledger.complete_studies():
            study = self.ledger.study(record.uid)
            decision = selection.decide(study, self.rules, self.models, _key)
            if decision.quarantine:
                self.ledger.quarantine_study(record.uid, record.revision, decision.reason, record.flags)
                continue
            jobs = [replace(job, flags=(*record.flags, *job.flags)) for job in decision.jobs]
            self.ledger.route(record.uid, record.revision, jobs, decision.reason)
            log(stage="route").info(
                "study routed", study_uid=record.uid, jobs=len(decision.jobs), reason=decision.reason
            )

    def ring(self) -> None:
        """Submit: wakes workers for jobs that nobody has heard of yet, or not for a while."""
        for job_id in self.ledger.unheard(_RINGS_AT_ONCE, _RING_BACK_OFF):
            self.broker.ring(job_id)

    def plan_ready(self) -> None:
        """Deliver and report: a job's results to one outbox row for each object or message and destination."""
        for job in self.ledger.ready_jobs():
            try:
                messages = self._write_messages(job, self.ledger.first_edition(job))
                self.ledger.plan(job.id, plan.plan(job, self.roles, messages, self.fallbacks))
            except (MessageInvalid, ConfigurationError) as error:
                self.ledger.hold_back(job.id, error.message)

    def report_again(self) -> None:
        """Report: confirmations, corrections and cancellations that somebody has asked for."""
        for job, edition in self.ledger.unwritten_editions():
            try:
                self.ledger.publish(edition, self._write_messages(job, edition))
            except MessageInvalid as error:
                self.ledger.give_up_edition(edition, error.message)
                log(stage="report").error("report cannot be written", job_id=job.id, reason=error.message)

    def take_back_lost(self) -> None:
        """Jobs whose worker has gone silent are queued again."""
        for job_id in self.ledger.take_back():
            log(stage="submit").warning("lease lost", job_id=job_id)

    def _write_messages(self, job: Job, edition: Edition) -> list[DeliveryDraft]:
        names = [name for name in job.draft.deliver if name in self.messages]
        header = self.ledger.input_instances(job.id)[0].header if names else None
        return [self._write_message(job, edition, header, name) for name in names if header]

    def _write_message(self, job: Job, edition: Edition, header: Header, destination: DestinationName) -> DeliveryDraft:
        control_id = plan.control_id(job.id, destination, edition.number)
        written = self.messages[destination](job, header, edition, control_id)
        file = self.spool.put(f"message {control_id}", [written.content])
        return DeliveryDraft(
            job_id=job.id,
            destination=destination,
            payload=Payload.MESSAGE,
            role=written.role,
            key=control_id,
            file=file,
            patient_key=written.patient_key,
            report_key=written.report_key,
        )


def _key(series: Series, model: selection.Model) -> JobId:
    return job_key(series.first.study_uid, series.uid, series.input_set(), model.digest)
