"""The way of a study, told once: receive -> hold -> route -> submit ~> workers ~> deliver -> report.

`gateway.receive` puts instances into the ledger; from there on each step here reads what waits in the ledger, asks the
stage's pure module what to do, and writes that down in one transaction. A step that is interrupted is simply done
again: state is in the ledger only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.deliver import plan
from gateway.domain.context import Order
from gateway.domain.each import do_each
from gateway.domain.errors import ConfigurationError, HilumError, MessageInvalid, NotFound
from gateway.domain.ids import DestinationName, InputSetId, JobId, ModelName, StudyUID
from gateway.domain.job import Edition, Job, refusal_edition
from gateway.domain.ports import Broker, Ledger, Spool, StudyRecord
from gateway.domain.study import Series, Study
from gateway.hold import assembly
from gateway.hold.holder import Holder
from gateway.letters import Letters
from gateway.observe.logs import log
from gateway.orders.inbox import OrderInbox
from gateway.orders.linker import Linker
from gateway.retraction import Retraction
from gateway.route import selection
from gateway.route.priors import NO_PRIORS, Priors, find_priors
from gateway.submit.jobkey import job_key

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
    retraction: Retraction  # how an older version is taken back
    letters: Letters  # messages to the EHR
    stranded_after: float  # seconds that a job waits for a worker that could do it, while others are there
    inbox: OrderInbox | None = None  # messages from the EHR, where the site takes them
    linker: Linker | None = None  # with what studies are linked then

    @property
    def next_look(self) -> float:
        """When time alone may next make something due, in seconds since the epoch."""
        return self.holder.next_look

    @property
    def steps(self) -> Sequence[Callable[[], None]]:
        """One round through every stage, in order; each reads from the ledger what the one before has left there."""
        return (
            self.hear,
            self.release_due,
            self.route_complete,
            self.ring,
            self.plan_ready,
            self.tell_refusals,
            self.report_again,
            self.relink,
        )

    def hear(self) -> None:
        """Orders: what the EHR has sent is read."""
        if self.inbox is not None:
            self.inbox.read_waiting()

    def relink(self) -> None:
        """Orders: studies that it concerns are linked with it. Until then nothing of them leaves."""
        do_each(self.ledger.stale_studies() if self.linker else (), self._relink)

    def _relink(self, uid: StudyUID) -> None:
        try:
            self._link(uid)
        except HilumError as error:
            log(stage="orders").error("study cannot be linked", study_uid=uid, reason=error.message)

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
        do_each(self.ledger.complete_studies(), self._route)

    def _route(self, record: StudyRecord) -> None:
        study = self.ledger.study(record.uid)
        order = self._link(record.uid)
        decision = selection.decide(study, self.rules, self.models, _key, order, self._priors(study))
        if decision.quarantine:
            self.ledger.quarantine_study(record.uid, record.revision, decision.reason, record.flags)
            return
        jobs = [replace(job, flags=(*record.flags, *job.flags)) for job in decision.jobs]
        self.ledger.route(record.uid, record.revision, jobs, decision.reason)
        log(stage="route").info("study routed", study_uid=record.uid, jobs=len(jobs), reason=decision.reason)

    def _priors(self, study: Study) -> Priors:
        """Earlier studies, where some model takes one."""
        if not any(model.takes_prior for model in self.models.values()):
            return NO_PRIORS
        return find_priors(study, self.ledger.whole_studies({one.header.patient.patient_id for one in study.instances}))

    def ring(self) -> None:
        """Submit: wakes workers for jobs that nobody has heard of yet, or not for a while."""
        for job_id, queue in self.ledger.unheard(_RINGS_AT_ONCE, _RING_BACK_OFF):
            self.broker.ring(job_id, queue)

    def plan_ready(self) -> None:
        """Deliver and report: a job's results to one outbox row for each object or message and destination."""
        do_each(self.ledger.ready_jobs(), self._plan)

    def _plan(self, job: Job) -> None:
        try:
            messages = self.letters.write(job, self.ledger.first_edition(job))
            drafts = plan.plan(job, self.roles, messages, self.fallbacks)
            self.retraction.replaced(job)
            self.ledger.plan(job.id, drafts)
        except (MessageInvalid, ConfigurationError, NotFound) as error:
            self.ledger.hold_back(job.id, error.message)

    def tell_refusals(self) -> None:
        """Deliver and report: that images were not processed, and why, to all whom their result was meant for."""
        do_each(self.ledger.untold_refusals(), self._tell_refusal)

    def _tell_refusal(self, job: Job) -> None:
        messages, trouble = [], ""
        try:
            messages = self.letters.write(job, refusal_edition(job))
        except MessageInvalid as error:
            trouble = f"the EHR cannot be told: {error.message}"
        reachable = replace(job.draft, deliver=tuple(name for name in job.draft.deliver if name in self.roles))
        drafts = plan.plan(replace(job, draft=reachable), self.roles, messages, self.fallbacks)
        self.ledger.tell_refusal(job.id, drafts, trouble)

    def report_again(self) -> None:
        """Report: confirmations, corrections and cancellations that somebody has asked for."""
        do_each(self.ledger.unwritten_editions(), self._report)

    def _report(self, unwritten: tuple[Job, Edition]) -> None:
        job, edition = unwritten
        try:
            self.ledger.publish(edition, self.letters.write(job, edition))
        except MessageInvalid as error:
            self.ledger.give_up_edition(edition, error.message)
            log(stage="report").error("report cannot be written", job_id=job.id, reason=error.message)

    def take_back_lost(self) -> None:
        """Jobs whose worker has gone silent are queued again."""
        for job_id in self.ledger.take_back():
            log(stage="submit").warning("lease lost", job_id=job_id)

    def hold_back_stranded(self) -> None:
        """Jobs that no worker can do say so; after a while they are in quarantine, where a person sees them."""
        for job_id, why in self.ledger.mark_stranded(self.stranded_after):
            self.ledger.hold_back(job_id, why)
            log(stage="submit").error("job quarantined", job_id=job_id, reason=why)

    def _link(self, uid: StudyUID) -> Order | None:
        """Links a study with all that the EHR has said so far, and returns its order. Messages about it that are to name
        somebody else by now are changed first: if that is interrupted, the study is still to be linked."""
        found = self.linker.look(uid) if self.linker else None
        if found is None:
            return None
        context, last_fact = found
        try:
            done = self.letters.retarget(uid, context)
        except MessageInvalid as error:
            done = True
            reason = f"a message cannot be written about the patient of today: {error.message}"
            context = replace(context, mismatch=context.mismatch or reason)
        if done:
            self.ledger.link(uid, context, last_fact)
        return context.order[0] if context.order else None


def _key(series: Series, inputs: InputSetId, model: selection.Model) -> JobId:
    return job_key(series.first.study_uid, series.uid, inputs, model.digest)
