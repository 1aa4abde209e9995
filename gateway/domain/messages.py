"""What gateway and workers say to each other: frozen, JSON, versioned. Ids and spool paths, never pixels.

A broker message is only a ring with a job id. The order and the outcome travel through the ledger and through the
pipe to the model's process. They hold nothing that says who the patient is: of the EHR's order only its numbers and codes.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

RUN_TASK = "hilum.run"
"""Name of the Celery task that wakes a worker; its only argument is a job id."""

VERSION = 1
"""Version of `JobOrder` and `Outcome`; a reader refuses a version it does not know."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One instance for a model to read."""

    sop_instance_uid: str
    path: str  # absolute path of a Part 10 file
    sha256: str  # of the dataset bytes, without file meta information
    input: str = ""  # which of several inputs of the manifest it belongs to; `PART/INPUT` of a fusion's part


@dataclass(frozen=True, kw_only=True)
class PartBundle:
    """Where a part of a fusion is."""

    name: str  # in the fusion
    bundle: str  # absolute path of its directory


@dataclass(frozen=True, kw_only=True)
class RequestedProcedure:
    """What was ordered, by its numbers and codes (PS3.3 C.17.2, Referenced Request Sequence); no free text."""

    accession_number: str = ""
    placer_order_number: str = ""
    filler_order_number: str = ""
    requested_procedure_id: str = ""
    procedure: tuple[Code, ...] = ()  # one or none


@dataclass(frozen=True, kw_only=True)
class ResultObject:
    """One DICOM object in the output directory."""

    role: str  # one of gateway.domain.roles; several objects may have one
    file: str  # file name in the output directory
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    sha256: str  # of the whole file
    size: int  # bytes


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """Everything a model's process needs to do one job."""

    job_id: str  # result UIDs are derived from it
    bundle: str  # absolute path of the bundle's directory
    inputs: tuple[InputFile, ...]  # of one series, or one for each input of the manifest; in no particular order.
    # Parts of a fusion may have the same ones
    output_dir: str  # existing empty directory for the result objects
    content_time: float  # seconds since the epoch; content date and time of every result object
    flags: tuple[str, ...] = ()  # what is already known to be unusual about the input
    predecessors: tuple[ResultObject, ...] = ()  # of the version that this one replaces
    extra_roles: tuple[str, ...] = ()  # kinds of result beside the usual ones, as gateway.domain.roles names them
    requested: tuple[RequestedProcedure, ...] = ()  # the EHR's order, where it has told of one
    compare: bool = False  # with the plain network, where the model has been made faster
    on_refusal: str = "envelope"  # of which refusals archive and EHR are told: gateway.domain.refusals
    parts: tuple[PartBundle, ...] = ()  # of a fusion
    version: int = VERSION


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """One segment of the result, as painted."""

    number: int  # 1..N
    label: str
    category: Code
    type: Code
    voxels: int


@dataclass(frozen=True, kw_only=True)
class FindingResult:
    """One thing that was found at a place: a detected box, or a connected lesion of a segment."""

    number: int  # 1..N within the result
    label: str  # `Nodule 2`
    name: Code
    tracking_uid: str  # the same in every object that speaks of it
    segment: int | None = None  # number of the segment that it is a part of
    site: tuple[Code, ...] = ()  # one or none
    laterality: tuple[Code, ...] = ()  # one or none
    sop_instance_uid: str = ""  # the image to look at
    frame_number: int | None = None  # and its frame, where it has several

    @property
    def sub_id(self) -> str:
        """Tells it apart within a message: `2`, or `1.2` for a part of segment 1."""
        return str(self.number) if self.segment is None else f"{self.segment}.{self.number}"


@dataclass(frozen=True, kw_only=True)
class MeasurementResult:
    """One measured quantity."""

    name: Code
    value: float
    unit: Code  # UCUM
    segment: int | None = None  # number of the segment it was measured on
    finding: int | None = None  # number of the finding it was measured on
    sop_instance_uid: str = ""  # the image that it is about, where it is not about all of them
    frame_number: int | None = None  # and its frame, where it has several
    verdict: tuple[Code, ...] = ()  # one or none: Present or Absent, where the manifest says from which probability
    low: float | None = None  # interval that 90 % of the model's samples lie in, where it was sampled
    high: float | None = None
    confidence: str = ""  # `high`, `moderate`, `low`; empty where the model was not sampled
    probability: bool = False  # in per cent, that what `name` says is there: not a measurement of it


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which build of which model."""

    name: str
    version: str
    digest: str  # SHA-256 over the bundle's files
    device_uid: str  # changes with each build
    manufacturer: str


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What one model of a fusion said, and how far it is from the result."""

    name: str  # in the fusion
    model: ModelIdentity
    weight: float = 0.0  # with which it counted; 0 where others were taken, or it is missing
    missing: str = ""  # why it has not answered
    measurements: tuple[MeasurementResult, ...] = ()  # its own, of its own segments
    segments: tuple[SegmentResult, ...] = ()  # its own
    dice: dict[str, float] = field(default_factory=dict)  # label of each segment of the result -> with its own
    difference: dict[str, float] = field(
        default_factory=dict
    )  # name of each number of the result -> its own minus that
    provenance: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()  # what is to be known of its images


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a model says what it says: shown as a map, or not shown for a reason."""

    method: str  # as the manifest names it
    of: Code  # the finding or segment
    shown: bool
    reason: str = ""  # part of a sentence, set where not shown
    scores: dict[str, float] = field(default_factory=dict)  # of its faithfulness, 0..1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job: a result set, or a refusal with its reason."""

    job_id: str
    status: str  # `complete`, `refused` (by the manifest or the gate: quarantine)
    model: ModelIdentity
    reason_code: str = ""  # set where refused
    reason: str = ""  # one sentence, set where refused
    refusal: tuple[
        Code, ...
    ] = ()  # the reason in codes (gateway.domain.refusals), where archive and EHR may be told it
    source_series_uid: str = ""
    source_instances: int = 0
    segments: tuple[SegmentResult, ...] = ()
    findings: tuple[FindingResult, ...] = ()
    measurements: tuple[MeasurementResult, ...] = ()
    objects: tuple[ResultObject, ...] = ()
    flags: tuple[str, ...] = ()  # each one sentence: what a reader of the result must know
    timings: dict[str, float] = field(default_factory=dict)  # stage -> seconds
    quality: dict[str, float] = field(
        default_factory=dict
    )  # figures of the images, and `outside`: 0 within the envelope
    provenance: dict[str, str] = field(default_factory=dict)  # what decided the numbers beside images and bundle
    explanations: tuple[Explanation, ...] = ()  # one where the manifest asks for it
    parts: tuple[PartResult, ...] = ()  # of a fusion, in the order of its manifest
    version: int = VERSION


Message = TypeVar("Message", JobOrder, Outcome)


def to_json(message: JobOrder | Outcome) -> str:
    """The message as one line of JSON."""
    return json.dumps(dataclasses.asdict(message), separators=(",", ":"), ensure_ascii=False)


def from_json(kind: type[Message], text: str) -> Message:
    """Reads what `to_json` wrote; raises ValueError for another version or shape."""
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"not a version {VERSION} {kind.__name__}")
    try:
        return typing.cast(Message, revive(kind, data))
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error


def revive(kind: Any, value: Any) -> Any:
    """Rebuilds a record from what `dataclasses.asdict` and JSON made of it; raises TypeError or KeyError for another shape."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: revive(hints[name], item) for name, item in _checked(value, dict).items()})
    if typing.get_origin(kind) is tuple:
        return tuple(revive(typing.get_args(kind)[0], item) for item in _checked(value, list, tuple))
    if kind is float:
        return _checked(value, float, int)
    if kind in (str, int):
        return _checked(value, kind)
    if isinstance(kind, type) and issubclass(kind, str):
        return kind(_checked(value, str))  # an identifier is one again
    return value


_hints = functools.cache(typing.get_type_hints)


def _checked(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} where {kinds[0].__name__} belongs")
    return value
