"""The replaceable parts, as protocols. `gateway.bootstrap` says which adapter fills which port."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.domain.commitment import CommitmentRequest, Kept
from gateway.domain.context import Fact, Key, StudyContext
from gateway.domain.evidence import Evidence, PerformedStep
from gateway.domain.ids import AETitle, AssociationId, DestinationName, InstanceUID, JobId, StudyUID
from gateway.domain.inbound import ApplicationAnswer, Inbound, InboundDraft, Reading
from gateway.domain.job import (
    Commitment,
    Delivery,
    DeliveryDraft,
    Edition,
    Job,
    JobDraft,
    Letter,
    Receipt,
    ReportKind,
)
from gateway.domain.job_ledger import JobLedger
from gateway.domain.states import StudyState
from gateway.domain.study import Instance, Study


class Clock(Protocol):
    """Time, so that tests can move it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class SpoolFile(Protocol):
    """A file on its way into the spool, written piece by piece by one thread."""

    def write(self, *pieces: bytes | memoryview) -> None:
        """Appends; raises StorageFull."""
        ...

    def view(self, start: int) -> memoryview:
        """What has been written from a place on, without reading it into memory."""
        ...

    def seal(self, name: str) -> str:
        """Gives it its name and returns its key; durable when it returns. Raises StorageFull."""
        ...

    def discard(self) -> None:
        """Lets go of the file; one that was not sealed is gone. Safe to repeat, and after `seal`."""
        ...


class Spool(Protocol):
    """Where bytes are kept. A key is made of digests, never of text from the wire."""

    def begin(self, *, durable: bool = True) -> SpoolFile:
        """A file that comes in piece by piece; raises StorageFull. Not durable: it may be lost with the power."""
        ...

    def remove(self, key: str) -> None:
        """Removes a file that no record names."""
        ...

    def put(self, name: str, chunks: Sequence[bytes | memoryview]) -> str:
        """Writes a file durably (content, name and directory) and returns its key; the same name again replaces it."""
        ...

    def path(self, key: str) -> Path:
        """The file of a key; raises NotFound for a key that is none."""
        ...

    def free(self) -> tuple[int, int]:
        """Free and total bytes of the file system."""
        ...

    def room(self) -> float:
        """Free part of the file system, from 0 to 1, in bytes or in files: whichever there is less of."""
        ...


class Broker(Protocol):
    """The doorbell. Losing a ring costs seconds, never a job."""

    def ring(self, job_id: JobId, queue: str) -> None:
        """Wakes a worker that listens to this queue; never blocks and never raises."""
        ...


@dataclass(frozen=True, kw_only=True)
class ObjectFile:
    """A DICOM object to send."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path


class Pacs(Protocol):
    """A destination of DICOM objects."""

    def store(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """Sends objects; one receipt for each SOP Instance UID, whatever happens to the connection."""
        ...

    def read_back(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """Looks what the destination has under each SOP Instance UID, and compares it with the file.

        Accepted: it is the same. Rejected: it is something else. Missing: there is nothing. Unsupported: it lets nobody
        look. Retry: it could not be asked.
        """
        ...

    def echo(self) -> str:
        """Proves that the destination answers, and says how; raises DestinationUnreachable."""
        ...


class Ehr(Protocol):
    """A destination of HL7 v2 messages."""

    def send(self, message: bytes) -> Receipt:
        """Sends one message (no framing) and waits for the acknowledgement of exactly this message."""
        ...

    def echo(self) -> str:
        """Proves that the destination accepts connections, and says how; raises DestinationUnreachable."""
        ...


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study's row."""

    uid: StudyUID
    state: StudyState
    instances: int
    revision: int  # grows with every stored instance
    last_stored_at: float
    open_associations: int  # that carried instances of it and are still there
    all_released: bool  # every association that carried instances of it was released, with nothing refused
    reason: str  # why it was released, not routed, or quarantined
    released_at: float | None
    evidence: int = 0  # grows with every piece of evidence about it
    last_released: bool = True  # the association that ended last was released, with nothing refused
    flags: tuple[str, ...] = ()  # what a reader of its results must know


@dataclass(frozen=True, kw_only=True)
class LedgerEvent:
    """One line of a study's story."""

    at: float
    what: str  # short, e.g. `job queued`
    detail: str  # one sentence, no patient data
    job_id: str = ""


class IntakeLedger(Protocol):
    """What receiving and holding need."""

    def open_association(self, association: AssociationId, calling_ae: str, address: str) -> None:
        """An association began."""
        ...

    def close_association(self, association: AssociationId, how: str) -> None:
        """An association ended; how is `released`, `refused` (released, but not all it brought was taken), `aborted` or `lost`."""
        ...

    def instance(self, uid: InstanceUID) -> Instance | None:
        """One stored instance."""
        ...

    def has_study(self, study: StudyUID) -> bool:
        """Whether an instance of the study has arrived before."""
        ...

    def add_instance(self, instance: Instance) -> str:
        """Makes an instance durable; says `new`, `duplicate` (same content) or `conflict` (other content, not kept as input)."""
        ...

    def open_studies(self) -> Sequence[StudyRecord]:
        """Studies that wait to be released."""
        ...

    def release(self, study: StudyUID, revision: int, reason: str, flags: Sequence[str] = ()) -> bool:
        """OPEN -> COMPLETE, unless an instance came since `revision` was read."""
        ...


class EvidenceLedger(Protocol):
    """What weighing evidence needs."""

    def add_evidence(self, study: StudyUID, evidence: Evidence) -> None:
        """Writes down what somebody says about a study, whether or not any of it has arrived."""
        ...

    def evidence(self, study: StudyUID) -> Sequence[Evidence]:
        """All that was said about a study, in the order in which it came."""
        ...

    def senders(self, study: StudyUID) -> Sequence[tuple[AETitle, str]]:
        """Calling AE title and address of everybody who has sent instances of it."""
        ...

    def own_series(self, study: StudyUID) -> frozenset[str]:
        """Series Instance UIDs of results that Hilum made for it."""
        ...


class StepLedger(Protocol):
    """What Modality Performed Procedure Steps need."""

    def add_step(self, step: PerformedStep, studies: Sequence[StudyUID]) -> bool:
        """Keeps a new step, and what it says as evidence about its studies; False where there is one of this UID."""
        ...

    def step(self, uid: str) -> PerformedStep | None:
        """A step as it was last said."""
        ...

    def change_step(self, before: PerformedStep, after: PerformedStep) -> bool:
        """Keeps what a step says now, and tells its studies; False where it is no longer as it was before."""
        ...


class CommitmentLedger(Protocol):
    """What storage commitment that others ask of us needs."""

    def add_commitment_request(self, request: CommitmentRequest, due: float) -> bool:
        """Keeps a request, to be reported from `due` on; False where its Transaction UID is used by another one.

        The same request again, which happens where our answer was lost, is kept once.
        """
        ...

    def due_commitment_requests(self, limit: int) -> Sequence[CommitmentRequest]:
        """Requests whose report is due, oldest first."""
        ...

    def defer_commitment_request(self, transaction_uid: str, due: float | None, answer: str) -> None:
        """The report was not taken: due again then, or given up where there is no such time."""
        ...

    def settle_commitment_request(self, transaction_uid: str, verdict: str) -> None:
        """The report was taken."""
        ...

    def kept(self, uids: Sequence[str], calling_ae: str) -> Mapping[str, Kept]:
        """What is known of instances, by SOP Instance UID, with regard to a peer that asks."""
        ...


class RoutingLedger(Protocol):
    """What routing needs."""

    def put_back(self, study: StudyUID, now: float) -> None:
        """The clock was put back: the last instance of an open study counts as stored now."""
        ...

    def complete_studies(self) -> Sequence[StudyRecord]:
        """Released studies that wait for routing."""
        ...

    def study(self, study: StudyUID) -> Study:
        """All instances of a study; raises NotFound."""
        ...

    def whole_studies(self, patient_ids: Collection[str]) -> Sequence[Study]:
        """Studies with one of these Patient IDs that are all here and that nothing is held back of."""
        ...

    def route(self, study: StudyUID, revision: int, jobs: Sequence[JobDraft], reason: str) -> Sequence[JobId]:
        """COMPLETE -> ROUTED or UNROUTED with its jobs, in one transaction; returns the jobs that are new.

        Nothing happens where something has come since, to the study or to a prior of a job.
        """
        ...

    def quarantine_study(self, study: StudyUID, revision: int, reason: str, flags: Sequence[str] = ()) -> None:
        """OPEN or COMPLETE -> QUARANTINED, unless an instance came since `revision` was read."""
        ...


class OutboxLedger(Protocol):
    """What delivery needs."""

    def ready_jobs(self) -> Sequence[Job]:
        """Jobs whose results wait to be planned."""
        ...

    def plan(self, job: JobId, drafts: Sequence[DeliveryDraft]) -> None:
        """READY -> DELIVERING with its outbox rows, in one transaction."""
        ...

    def untold_refusals(self) -> Sequence[Job]:
        """Refused jobs of which archive and EHR are to be told and have not been."""
        ...

    def tell_refusal(self, job: JobId, drafts: Sequence[DeliveryDraft], trouble: str = "") -> None:
        """A refused job, which stays QUARANTINED, gets its outbox rows, in one transaction."""
        ...

    def hold_back(self, job: JobId, reason: str) -> None:
        """READY -> QUARANTINED: a result of which no valid message can be written does not leave."""
        ...

    def claim_deliveries(self, destination: DestinationName, lease: float, limit: int) -> Sequence[Delivery]:
        """Due rows of one destination, oldest first, leased to the caller."""
        ...

    def settle(
        self, delivery: Delivery, receipt: Receipt, next_try: float | None, *, proof_due: float | None = None
    ) -> None:
        """Stores the answer to a transfer.

        Accepted is delivered, or stored where `proof_due` says when to ask for the proof; what may come again waits until
        `next_try` and is dead where there is none; a form that is not taken is replaced by its fallback.
        """
        ...

    def claim_proofs(self, destination: DestinationName, lease: float, limit: int) -> Sequence[Delivery]:
        """Stored rows of one destination whose proof is due, oldest first; not due again before the lease is over."""
        ...

    def settle_proof(self, delivery: Delivery, finding: Receipt, next_try: float | None) -> None:
        """Stores what was found: delivered, sent again or asked again at `next_try`, dead where there is none."""
        ...

    def open_commitment(self, transaction: str, deliveries: Sequence[Delivery], answer_until: float) -> None:
        """Writes down a storage commitment transaction before it is requested; unanswered rows are due at `answer_until`."""
        ...

    def commitment(self, transaction: str) -> Commitment | None:
        """A storage commitment transaction of ours, by its Transaction UID."""
        ...

    def close_commitment(self, transaction: str, answer: str) -> None:
        """A transaction is answered; a second answer changes nothing."""
        ...


class InboxLedger(Protocol):
    """What messages from the EHR need."""

    def add_messages(self, drafts: Sequence[InboundDraft]) -> Sequence[str]:
        """Makes messages durable in one transaction; says `new`, `duplicate` or `conflict` for each."""
        ...

    def unread_messages(self, limit: int) -> Sequence[Inbound]:
        """Messages that wait to be read, oldest first."""
        ...

    def settle_messages(self, readings: Sequence[Reading]) -> Sequence[JobId]:
        """What messages say counts from now on; the studies it may concern are to be linked anew. Returns the jobs of whose
        delivered messages an application has said that it refuses them."""
        ...

    def hear_applications(self, answers: Sequence[ApplicationAnswer]) -> Sequence[JobId]:
        """What applications have said of our messages on a connection of ours counts from now on; returns the same."""
        ...


class ContextLedger(Protocol):
    """What linking studies with the EHR's facts needs."""

    def facts_about(self, keys: Collection[Key]) -> tuple[Sequence[Fact], int]:
        """Every fact that may concern whoever has these keys, and the number of the last fact there is."""
        ...

    def stale_studies(self) -> Sequence[StudyUID]:
        """Studies about which the EHR has said something since they were linked."""
        ...

    def index_study(self, study: StudyUID, keys: Collection[Key]) -> None:
        """From now on, facts with one of these keys touch the study."""
        ...

    def link(self, study: StudyUID, context: StudyContext, seen: int) -> bool:
        """Stores what the EHR says, up to fact number `seen`; False, and nothing done, if it has said more since."""
        ...

    def study_context(self, study: StudyUID) -> StudyContext | None:
        """What the EHR says about a study; nothing where it was never linked."""
        ...


class EditionLedger(Protocol):
    """What confirming, correcting and cancelling a result needs."""

    def request_report(self, job: JobId, kind: ReportKind, *, by: str = "", reason: str = "") -> int:
        """Asks for one more edition of the report about a job; returns its number. Raises NotFound, ReportRefused."""
        ...

    def first_edition(self, job: Job) -> Edition:
        """The report that is made when a job is planned."""
        ...

    def edition(self, job: Job, number: int) -> Edition:
        """One edition of the report about a job; raises NotFound."""
        ...

    def unwritten_editions(self) -> Sequence[tuple[Job, Edition]]:
        """Editions that were asked for and whose messages are not in the outbox yet."""
        ...

    def publish(self, edition: Edition, drafts: Sequence[DeliveryDraft]) -> None:
        """Puts the messages of an edition into the outbox, in one transaction."""
        ...

    def give_up_edition(self, edition: Edition, why: str) -> None:
        """No valid message can be written for it."""
        ...


class RetractionLedger(Protocol):
    """What taking results back needs."""

    def job(self, job: JobId) -> Job:
        """One job; raises NotFound."""
        ...

    def jobs_of_build(self, digest: str, since: float) -> Sequence[Job]:
        """Jobs of a model's build (its digest, or how that begins) made since a time and not withdrawn, oldest first."""
        ...

    def deliveries_of(self, job: JobId) -> Sequence[Delivery]:
        """All deliveries of a job, oldest first."""
        ...

    def input_instances(self, job: JobId) -> Sequence[Instance]:
        """The instances of a job's input set."""
        ...

    def retract(self, job: JobId, notices: Sequence[DeliveryDraft], reason: str) -> bool:
        """Withdraws a result: what has not left stays here, and the notices go out. False where it is withdrawn already."""
        ...


class LetterLedger(Protocol):
    """What bringing messages in line with the EHR needs."""

    def letters_about(self, study: StudyUID) -> Sequence[Letter]:
        """The latest message about each job of a study for each destination, and whatever before it has not ended."""
        ...

    def rewrite(self, delivery: int, draft: DeliveryDraft) -> bool:
        """A message that nobody has seen says something else; False, and nothing done, where it has been sent since."""
        ...

    def withdraw(self, delivery: int, why: str) -> bool:
        """A message does not go again; False, and nothing done, for one that has arrived or is being sent."""
        ...


class Ledger(
    IntakeLedger,
    EvidenceLedger,
    StepLedger,
    CommitmentLedger,
    RoutingLedger,
    JobLedger,
    OutboxLedger,
    EditionLedger,
    RetractionLedger,
    InboxLedger,
    ContextLedger,
    LetterLedger,
    Protocol,
):
    """The truth about every study, job and delivery."""

    def unheard(self, limit: int, back_off: float) -> Sequence[tuple[JobId, str]]:
        """Queued jobs to ring for now, and on which queue: each rings at once, then less and less often."""
        ...

    def take_back(self, owner: str | None = None) -> Sequence[JobId]:
        """Jobs whose lease is over, or all of one owner that is known to be gone, are queued again."""
        ...

    def mark_stranded(self, after: float) -> Sequence[tuple[JobId, str]]:
        """Writes down why jobs wait that no worker can do; returns those that have for so many seconds, each with the reason."""
        ...
