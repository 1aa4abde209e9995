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
        return [self._draft(job, header, name, edition, subject) for name in names]

    def retarget(self, study: StudyUID, context: StudyContext) -> bool:
        """Brings messages about a study in line with what the EHR says; False where one is being sent this moment.

        What nobody has seen is written anew. What somebody may have seen does not go again; a correction follows it. Done
        again after an interruption, it does what is left. Raises MessageInvalid.
        """
        done = True
        for letter in self._ledger.letters_about(study):
            header = self._header(letter.job_id)
            subject = _subject(header, context)
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
        self._ledger.rewrite(letter.delivery_id, self._draft(job, header, letter.destination, edition, subject))
        log(stage="report").info("report written anew", job_id=job.id, destination=letter.destination)

    def _correct(self, letter: Letter, changed: str) -> None:
        """Every EHR of the job gets the correction, so it is asked for once."""
        self._ledger.withdraw(letter.delivery_id, "a correction takes its place")
        if not letter.settled:
            # Of a result that was taken back or replaced meanwhile there is nothing to correct.
            with suppress(ReportRefused):
                reason = f"The EHR names otherwise: {changed}."
                self._ledger.request_report(letter.job_id, ReportKind.CORRECTED, reason=reason)

    def _header(self, job: JobId) -> Header:
        """Of the images that results lie on: a prior's name another study and another order."""
        series = self._ledger.job(job).draft.series_uid
        return next(one.header for one in self._ledger.input_instances(job) if one.header.series_uid == series)

    def _draft(
        self, job: Job, header: Header, destination: DestinationName, edition: Edition, subject: Subject
    ) -> DeliveryDraft:
        control_id = plan.control_id(job.id, destination, edition.number)
        about = replace(header, patient=subject.patient)
        written = self._compose[destination](job, about, subject, edition, control_id)
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


def _subject(header: Header, context: StudyContext | None) -> Subject:
    """Whom and what a message names: as the images have it where the EHR has told nothing."""
    return (context or StudyContext(patient=header.patient)).subject(header.accession_number)
