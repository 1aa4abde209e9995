"""A model's work on one input set, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from gateway.domain.context import Subject
from gateway.domain.estimate import UNKNOWN, Estimate
from gateway.domain.ids import DestinationName, InputSetId, JobId, ModelName, SeriesUID, Sha256, StudyUID
from gateway.domain.messages import Outcome
from gateway.domain.schedule import FRESH, Turn
from gateway.domain.states import DeliveryState, JobState


class Priority(IntEnum):
    """Who goes first; lower is sooner."""

    STAT = 0
    URGENT = 10
    ROUTINE = 20
    OFF_PEAK = 30  # when nothing else waits, and in the site's off-peak hours where it has any


ANY_DEVICE = "any"


class OnRefusal(Enum):
    """What becomes of images that a model refuses."""

    REPORT = "report"  # archive and EHR are told why they were not processed
    ENVELOPE = (
        "envelope"  # they are told where the images are not such as the model was made for, not where they are broken
    )
    HOLD = "hold"  # the job stays in quarantine, and nobody outside is told


@dataclass(frozen=True, kw_only=True)
class NamedSeries:
    """Which series was picked for an input of a manifest."""

    name: str  # of the input
    series_uid: SeriesUID
    study_uid: StudyUID | None = None  # of a prior; none: the job's own


@dataclass(frozen=True, kw_only=True)
class JobDraft:
    """A job that routing wants."""

    id: JobId  # digest of input set, model digest and settings digest
    study_uid: StudyUID
    series_uid: SeriesUID
    input_set: InputSetId
    model: ModelName  # the site's name for the bundle
    model_digest: Sha256
    rule: str  # name of the rule that asked
    deliver: tuple[DestinationName, ...]
    priority: Priority = Priority.ROUTINE
    flags: tuple[str, ...] = ()
    on_refusal: OnRefusal = OnRefusal.ENVELOPE
    sender: str = ""  # AE title of whoever sent the images: each has its turn
    due_in: float | None = None  # seconds from when the job is made to its deadline
    device: str = ANY_DEVICE  # what the model needs: `cuda`, `mps`, `cpu`
    voxels: int = 0  # of all its images: rows x columns x frames
    inputs: tuple[NamedSeries, ...] = ()  # of a model that takes several series: `series_uid` first, then the others

    @property
    def series(self) -> tuple[tuple[StudyUID, SeriesUID], ...]:
        """All series that it is about, each with its study."""
        own = ((self.study_uid, self.series_uid),)
        return tuple((item.study_uid or self.study_uid, item.series_uid) for item in self.inputs) or own

    @property
    def prior_studies(self) -> frozenset[StudyUID]:
        """Earlier studies that some of its series are of."""
        return frozenset(item.study_uid for item in self.inputs if item.study_uid)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the ledger knows it."""

    draft: JobDraft
    state: JobState
    fence: int  # grows with every claim; a commit with an older number is thrown away
    attempts_failed: int  # the model's process failed
    attempts_lost: int  # the worker was lost
    reason: str  # why it is dead or quarantined, or what the last attempt ended with
    created_at: float  # seconds since the epoch
    started_at: float | None  # of the last attempt
    finished_at: float | None
    supersedes: JobId | None  # the earlier version of this result
    outcome: Outcome | None

    @property
    def id(self) -> JobId:
        """The job's id."""
        return self.draft.id


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run one job until the lease ends."""

    job: Job
    fence: int
    turn: Turn = FRESH  # of the worker, after this job
    expected: Estimate = UNKNOWN  # what it will take


class ReportKind(Enum):
    """What an edition of the report about a job is (HL7 table 0123)."""

    PRELIMINARY = "preliminary"  # by the model alone: P
    FINAL = "final"  # a person has confirmed it: F
    CORRECTED = "corrected"  # replaces what was reported before: C
    CANCELLED = "cancelled"  # there is no result any more: X
    REFUSED = "refused"  # there is no result, and why: the images were not processed


@dataclass(frozen=True, kw_only=True)
class Edition:
    """One version of the report about a job. Each replaces the one before as a whole, and goes to every EHR of the job."""

    job_id: JobId
    number: int  # from 1; the first is made when the job is planned. 0: why there is no result
    kind: ReportKind
    at: float  # seconds since the epoch, later by a second at least than the edition before: receivers compare it
    by: str = ""  # who confirmed the result
    reason: str = ""  # of a correction or cancellation: one sentence, no patient data
    verified: bool = False  # whether a person has confirmed this or an earlier edition
    follows: bool = False  # the first edition: whether it takes the place of a report that there is no result
    earlier: int = 0  # how many editions there were of reports about the results in whose place this one is


REFUSAL = 0
"""Number of the edition that says why there is no result; what a later attempt gives replaces it."""


def refusal_edition(job: Job) -> Edition:
    """The report that a job's images were not processed."""
    at = job.created_at if job.finished_at is None else job.finished_at
    return Edition(job_id=job.id, number=REFUSAL, kind=ReportKind.REFUSED, at=at)


class Payload(Enum):
    """What a delivery carries."""

    OBJECT = "object"  # a DICOM object
    MESSAGE = "message"  # an HL7 message


@dataclass(frozen=True, kw_only=True)
class DeliveryDraft:
    """One object or message for one destination."""

    job_id: JobId
    destination: DestinationName
    payload: Payload
    role: str  # one of `gateway.domain.roles`
    key: str  # SOP Instance UID, or the message control id (MSH-10)
    file: str  # spool key of the frozen bytes
    sop_class_uid: str = ""
    held: bool = False  # waits for the job's objects
    fallbacks: tuple[DeliveryDraft, ...] = ()  # what goes instead where the destination does not take this form
    patient_key: str = ""  # messages about one patient leave in the order in which they were written
    report_key: str = ""  # and so do editions of one report, also behind one that still waits for objects
    subject: Subject | None = None  # a message: whom and what it names
    edition: int = 0  # and which edition of the report it is


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery as the ledger knows it: one row of the outbox."""

    id: int
    draft: DeliveryDraft
    state: DeliveryState
    attempts: int
    first_try: float | None  # seconds since the epoch
    next_try: float  # when to send again; of one that is stored, when to ask for the proof
    last_answer: str  # what the destination, or the network, said last
    stored_at: float | None  # the destination said that it has it
    delivered_at: float | None  # and it is proven, where the site wants a proof
    checks: int  # how often the proof has been asked for since it was stored
    transaction: str  # Transaction UID (0008,1195) of the storage commitment it is part of, or empty
    fence: int  # grows with every claim; an answer with an older number is thrown away
    application: tuple[str, str] | None = None  # a message: MSA-1 and MSA-3 of what its receiver said to our own port


class Verdict(Enum):
    """What a destination's answer means."""

    ACCEPTED = "accepted"
    RETRY = "retry"  # transient: try again later
    REJECTED = "rejected"  # permanent: no use in trying again
    UNSUPPORTED = "unsupported"  # permanent for this form or question; another may do
    MISSING = "missing"  # what was stored is not there: send it again


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a destination answered for one object or message."""

    verdict: Verdict
    answer: str  # one line, no patient data
    answered: bool = False  # whether the destination itself said so, about this one; else nobody may have been there


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """A storage commitment transaction (PS3.4 annex J) as the ledger knows it."""

    transaction: str  # Transaction UID
    destination: DestinationName
    requested_at: float  # seconds since the epoch
    answered_at: float | None
    deliveries: tuple[Delivery, ...]  # that still wait for its answer


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message about a job for an EHR, as the outbox has it."""

    delivery_id: int
    key: str  # MSH-10
    latest: bool  # whether no later one about the job is there for this EHR
    job_id: JobId
    destination: DestinationName
    edition: int  # of the report
    state: DeliveryState
    attempts: int
    subject: Subject
    settled: bool  # a later edition is asked for, or a later result of the same images has taken its place
