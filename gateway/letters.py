"""Messages to the EHR about jobs: written, and brought in line when the EHR says that they are about somebody else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from gateway.deliver import plan
from gateway.domain.context import StudyContext, Subject
from gateway.domain.errors import ReportRefused
from gateway.domain.ids import DestinationName, JobId, StudyUID, digest
from gateway.domain.job import DeliveryDraft, Edition, Job, Letter, Payload, ReportKind
from gateway.domain.ports import Ledger, Spool
from gateway.domain.study import Header
from gateway.observe.logs import log
from gateway.orders.retarget import Step, difference, step


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """What goes to an EHR."""

    content: bytes
    role: str  # `oru`, `mdm`, `fhir`
    patient_key: str  # digest of whom it is about
    report_key: str  # of what report it is an edition
    filed_under: str = ""  # the number of an order that its receiver files it by; empty where it has one of its own


Compose = Callable[[Job, Header, Subject, Edition, str], WrittenReport]
"""Writes an edition of the report about a job for one EHR destination: the source's header, whom and what to name, the
edition, the control id; raises MessageInvalid."""


class Letters:
    """Writes to every EHR destination."""

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        compose: Mapping[DestinationName, Compose],
        silent: Collection[DestinationName] = (),
    ) -> None:
        """``silent`` destinations are not told of refusals."""
        self._ledger, self._spool, self._compose, self._silent = ledger, spool, compose, frozenset(silent)

    def write(self, job: Job, edition: Edition) -> list[DeliveryDraft]:
        """An edition of the report about a job for each of its EHR destinations; raises MessageInvalid."""
        untold = self._silent if edition.kind is ReportKind.REFUSED else frozenset()
        names = [name for name in job.draft.deliver if name in self._compose and name not in untold]
        if not names:
            return []
        header = self._header(job.id)
        subject = _subject(header, self._ledger.study_context(job.draft.study_uid))
        known = self._earlier(job) if edition.number > 1 else {}
        return [draft for name in names for draft in self._drafts(job, header, name, edition, subject, known.get(name))]

    def retarget(self, study: StudyUID, context: StudyContext) -> bool:
        """Brings messages about a study in line with what the EHR says; False where one is being sent this moment.

        What nobody has seen is written anew. What somebody may have seen does not go again; a correction follows it. Done
        again after an interruption, it does what is left. Raises MessageInvalid.
        """
        done = True
        for letter in self._ledger.letters_about(study):
            header = self._header(letter.job_id)
            subject = _subject(header, context)
            if _takes_away(letter):
                subject = _under_numbers_of(letter.subject, subject)
            what = step(letter.state, letter.attempts, letter.subject, subject)
            if what is Step.WAIT:
                done = False
            elif what is Step.REWRITE:
                self._rewrite(letter, header, subject)
            elif what is Step.CORRECT:
                self._correct(letter, difference(letter.subject, subject))
        return done

    def _rewrite(self, letter: Letter, header: Header, subject: Subject) -> None:
        job = self._ledger.job(letter.job_id)
        edition = self._ledger.edition(job, letter.edition)
        write = self._withdrawal if _takes_away(letter) else self._draft
        self._ledger.rewrite(letter.delivery_id, write(job, header, letter.destination, edition, subject))
        log(stage="report").info("report written anew", job_id=job.id, destination=letter.destination)

    def _correct(self, letter: Letter, changed: str) -> None:
        """Every EHR of the job gets the correction, so it is asked for once. Where a later edition is on its way, which is
        brought in line itself, nothing more is needed."""
        if _takes_away(letter):
            return  # it goes on: nothing else takes the report away from that number
        self._ledger.withdraw(letter.delivery_id, "a correction takes its place")
        if letter.latest and not letter.settled:
            # Of a result that was taken back or replaced meanwhile there is nothing to correct.
            with suppress(ReportRefused):
                reason = f"The EHR names otherwise: {changed}."
                self._ledger.request_report(letter.job_id, ReportKind.CORRECTED, reason=reason)

    def _earlier(self, job: Job) -> dict[DestinationName, Letter]:
        """What each EHR may have seen last of a job."""
        letters = self._ledger.letters_about(job.draft.study_uid)
        return {one.destination: one for one in letters if one.job_id == job.id and one.latest and one.attempts > 0}

    def _drafts(
        self,
        job: Job,
        header: Header,
        name: DestinationName,
        edition: Edition,
        subject: Subject,
        earlier: Letter | None,
    ) -> list[DeliveryDraft]:
        """An edition for one EHR. Where that files by a number of the order which has changed, it is told first that there is
        no report under the old number any more."""
        draft = self._draft(job, header, name, edition, subject)
        if earlier is None:
            return [draft]
        before = _under_numbers_of(earlier.subject, subject)
        now, then = (self._written(job, header, name, edition, one, draft.key) for one in (subject, before))
        if now.filed_under == then.filed_under:
            return [draft]
        return [self._withdrawal(job, header, name, edition, before), draft]

    def _header(self, job: JobId) -> Header:
        """Of the images that results lie on: a prior's name another study and another order."""
        series = self._ledger.job(job).draft.series_uid
        return next(one.header for one in self._ledger.input_instances(job) if one.header.series_uid == series)

    def _draft(
        self, job: Job, header: Header, destination: DestinationName, edition: Edition, subject: Subject
    ) -> DeliveryDraft:
        control_id = plan.control_id(job.id, destination, edition.number)
        written = self._written(job, header, destination, edition, subject, control_id)
        return self._kept(job, destination, edition, subject, control_id, written)

    def _withdrawal(
        self, job: Job, header: Header, destination: DestinationName, edition: Edition, subject: Subject
    ) -> DeliveryDraft:
        """The message before an edition that takes the report away from the number it was under. It is a report of its own:
        a dead letter of it can be sent again whatever became of the edition."""
        control_id = plan.withdrawal_id(job.id, destination, edition.number)
        reason = "The report belongs to another order number."
        taken_away = replace(edition, kind=ReportKind.CANCELLED, by="", reason=reason)
        written = self._written(job, header, destination, taken_away, subject, control_id)
        return self._kept(job, destination, edition, subject, control_id, replace(written, report_key=control_id))

    def _written(
        self, job: Job, header: Header, name: DestinationName, edition: Edition, subject: Subject, control_id: str
    ) -> WrittenReport:
        return self._compose[name](job, replace(header, patient=subject.patient), subject, edition, control_id)

    def _kept(
        self,
        job: Job,
        destination: DestinationName,
        edition: Edition,
        subject: Subject,
        control_id: str,
        written: WrittenReport,
    ) -> DeliveryDraft:
        return DeliveryDraft(
            job_id=job.id,
            destination=destination,
            payload=Payload.MESSAGE,
            role=written.role,
            key=control_id,
            # Named by its content too: the same message written anew must not change bytes that are on their way.
            file=self._spool.put(f"message {control_id} {digest(written.content.hex())}", [written.content]),
            patient_key=written.patient_key,
            report_key=written.report_key,
            subject=subject,
            edition=edition.number,
        )


def _takes_away(letter: Letter) -> bool:
    """Whether a message only takes a report away from a number."""
    return letter.key == plan.withdrawal_id(letter.job_id, letter.destination, letter.edition)


def _under_numbers_of(said: Subject, now: Subject) -> Subject:
    """Whom the EHR knows now, under the order's numbers as they were said."""
    return replace(
        now,
        accession_number=said.accession_number,
        placer_number=said.placer_number,
        filler_number=said.filler_number,
    )


def _subject(header: Header, context: StudyContext | None) -> Subject:
    """Whom and what a message names: as the images have it where the EHR has told nothing."""
    return (context or StudyContext(patient=header.patient)).subject(header.accession_number)
