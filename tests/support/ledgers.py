"""Ledgers for tests, the drivers that cause each event of the state tables, and ways to every state."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TypeVar

from sqlalchemy import NullPool, create_engine

from gateway.domain.context import Order, StudyContext
from gateway.domain.errors import LeaseLost, NotFound, ReportRefused
from gateway.domain.ids import (
    AssociationId,
    DestinationName,
    InputSetId,
    JobId,
    ModelName,
    SeriesUID,
    Sha256,
    StudyUID,
    digest,
)
from gateway.domain.inbound import InboundDraft, Reading
from gateway.domain.job import Claim, Delivery, DeliveryDraft, JobDraft, Payload, Receipt, ReportKind, Verdict
from gateway.domain.messages import ModelIdentity, Outcome, ResultObject
from gateway.domain.refusals import reasons
from gateway.domain.states import DeliveryEvent, IllegalTransition, InboundEvent, JobEvent, JobState, StudyEvent
from gateway.domain.study import Patient
from gateway.store import schema
from gateway.store.engine import migrate, open_engine
from gateway.store.ledger import SqlLedger
from tests.support.received import SERIES, STUDY, MovedClock, instance

POSTGRES = "HILUM_TEST_POSTGRES"
"""Environment variable with the address of a PostgreSQL server that tests may make databases on."""

PACS, EHR = DestinationName("pacs"), DestinationName("ehr")
YES = Receipt(verdict=Verdict.ACCEPTED, answer="0x0000")
LATER = Receipt(verdict=Verdict.RETRY, answer="refused")
NO = Receipt(verdict=Verdict.REJECTED, answer="0xA900")
OTHER_FORM = Receipt(verdict=Verdict.UNSUPPORTED, answer="no presentation context")
MISSING = Receipt(verdict=Verdict.MISSING, answer="not there")


class MovedLeaseClock:
    """Time for leases that tests move; another epoch is another boot."""

    def __init__(self) -> None:
        self.time, self.epoch = 0.0, "boot 1"

    def now(self) -> float:
        """Seconds of this epoch."""
        return self.time


def make_ledger(directory: Path, *, durability: str = "OFF") -> SqlLedger:
    """A ledger whose clocks tests move; fast, since no power cut is meant unless asked for.

    On SQLite, or, where the environment names a server (`POSTGRES`), there: one ledger at a time.
    """
    if server := os.environ.get(POSTGRES):
        engine = open_engine(_emptied(server))
        return SqlLedger(engine, MovedClock(), lease_clock=MovedLeaseClock())  # type: ignore[arg-type]
    (directory / "ledger.db").write_bytes(_migrated())
    engine = open_engine(f"sqlite:///{directory / 'ledger.db'}", durability=durability)
    return SqlLedger(engine, MovedClock(), lease_clock=MovedLeaseClock())  # type: ignore[arg-type]


def _emptied(server: str) -> str:
    """Address of this process's database there, with the tables of this version and nothing in them."""
    address = _database(server)
    tables = ", ".join(table.name for table in schema.metadata.sorted_tables)
    _administer(address, f"TRUNCATE {tables} RESTART IDENTITY")
    return address


@cache
def _database(server: str) -> str:
    name = f"ledger_{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name}")
    address = server.replace("/postgres?", f"/{name}?")
    engine = open_engine(address)
    migrate(engine)
    engine.dispose()
    return address


def _administer(address: str, statement: str) -> None:
    engine = create_engine(address, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)


@cache
def _migrated() -> bytes:
    """An empty ledger of this version: migrating takes longer than most tests."""
    with tempfile.TemporaryDirectory() as directory:
        engine = open_engine(f"sqlite:///{directory}/ledger.db")
        migrate(engine)
        engine.dispose()
        return Path(directory, "ledger.db").read_bytes()


def draft(
    number: int = 1, *, study: str = STUDY, series: str = SERIES, deliver: tuple[str, ...] = (PACS, EHR)
) -> JobDraft:
    """A job on what the series holds; the number stands for its input set."""
    return JobDraft(
        id=JobId(digest("job", study, series, str(number))[:32]),
        study_uid=StudyUID(study),
        series_uid=SeriesUID(series),
        input_set=InputSetId(digest(str(number))),
        model=ModelName("m"),
        model_digest=Sha256(digest("m")),
        rule="r",
        deliver=tuple(DestinationName(name) for name in deliver),
    )


def outcome(job: JobId, *, status: str = "complete", objects: tuple[str, ...] = ("1.9.1",)) -> Outcome:
    """What a model's process says."""
    return Outcome(
        job_id=job,
        status=status,
        model=ModelIdentity(name="m", version="1", digest="d", device_uid="1.2", manufacturer="x"),
        reason="" if status == "complete" else "too thin",
        refusal=() if status == "complete" else reasons("envelope_size"),
        objects=tuple(
            ResultObject(
                role="seg", file="f", sop_class_uid="1.2", sop_instance_uid=uid, series_uid="1.9", sha256="", size=1
            )
            for uid in objects
        ),
    )


def deliveries(job: JobId, objects: tuple[str, ...] = ("1.9.1",)) -> list[DeliveryDraft]:
    """Each object to the PACS, and a message that waits for them."""
    common = {"job_id": job, "file": "f"}
    rows = [DeliveryDraft(destination=PACS, payload=Payload.OBJECT, role="seg", key=uid, **common) for uid in objects]  # type: ignore[arg-type]
    other = DeliveryDraft(
        destination=EHR,
        payload=Payload.MESSAGE,
        role="oru",
        key="d" + job[:15],
        patient_key="p",
        report_key=job,
        **common,
    )  # type: ignore[arg-type]
    return [*rows, dataclasses.replace(other, key="c" + job[:15], held=True, fallbacks=(other,))]


def notice(job: JobId) -> DeliveryDraft:
    """Tells the PACS that a result is withdrawn."""
    return DeliveryDraft(
        job_id=job, destination=PACS, payload=Payload.OBJECT, role="rejection", key="1.8" + job[:1], file="f"
    )


class Story:
    """One study, one job and one object on its way, and how to make each event of the tables happen to them.

    A driver does what the running product would do; where that is not possible in the present state nothing happens,
    or IllegalTransition or LeaseLost is raised.
    """

    def __init__(self, directory: Path) -> None:
        self.ledger = make_ledger(directory)
        self.ledger.open_association(AssociationId("a1"), "CT1", "127.0.0.1")
        self.job = draft().id
        self._stored = self._routed = self._orders = 0
        self._claim: Claim | None = None
        self._deliveries: list[Delivery] = []
        self.study_events: Mapping[StudyEvent, Callable[[], object]] = {
            StudyEvent.INSTANCE_STORED: self.store,
            StudyEvent.RELEASED: lambda: self.ledger.release(STUDY, self._revision(), "quiet"),
            StudyEvent.JOBS_MADE: self.route,
            StudyEvent.NOTHING_TO_RUN: lambda: self.ledger.route(STUDY, self._revision(), [], "no rule"),
            StudyEvent.HELD_BACK: lambda: self.ledger.quarantine_study(STUDY, self._revision(), "two patients"),
            StudyEvent.CONTEXT_CHANGED: self.order,
            StudyEvent.REPLAYED: lambda: self.ledger.replay_study(STUDY),
        }
        self.job_events: Mapping[JobEvent, Callable[[], object]] = {
            JobEvent.CLAIMED: self.claim,
            JobEvent.LEASE_EXPIRED: lambda: self.ledger.take_back("w"),
            JobEvent.ATTEMPT_FAILED: lambda: self.ledger.fail(self._held(), "crashed"),
            JobEvent.EXHAUSTED: lambda: self.ledger.fail(self._held(), "crashed", permanent=True),
            JobEvent.COMMITTED: lambda: self.ledger.commit(self._held(), outcome(self.job)),
            JobEvent.REFUSED: self.refuse,
            JobEvent.PLANNED: lambda: self.ledger.plan(self.job, deliveries(self.job)),
            JobEvent.ALL_DELIVERED: lambda: self.deliver(YES),
            JobEvent.SOME_DEAD: lambda: self.deliver(NO),
            JobEvent.REPLAYED: self.replay_job,
            JobEvent.CANCELLED: lambda: self.ledger.cancel_job(self.job),
            JobEvent.REPORTED: self.report_again,
            JobEvent.OVERTAKEN: self.overtake,
            JobEvent.RETRACTED: self.retract,
            JobEvent.REFUSAL_RETRACTED: self.retract_refusal,
        }
        self.delivery_events: Mapping[DeliveryEvent, Callable[[], object]] = {
            DeliveryEvent.UNHELD: lambda: self.deliver(YES, only=PACS),
            DeliveryEvent.CLAIMED: self.claim_deliveries,
            DeliveryEvent.LEASE_EXPIRED: lambda: self.ledger.recover(),
            DeliveryEvent.ACCEPTED: lambda: self.settle(YES, None),
            DeliveryEvent.DEFERRED: lambda: self.settle(LATER, self.ledger.clock.now() + 5),
            DeliveryEvent.REJECTED: self.reject,
            DeliveryEvent.REPLAYED: self.replay_message,
            DeliveryEvent.TAKEN: lambda: self.settle(YES, None, proof_due=0.0),
            DeliveryEvent.VERIFIED: lambda: self.prove(YES, None),
            DeliveryEvent.MISSING: lambda: self.prove(MISSING, self.ledger.clock.now()),
            DeliveryEvent.SUBSTITUTED: lambda: self.settle(OTHER_FORM, None),
            DeliveryEvent.WITHDRAWN: self.withdraw,
        }

    def store(self) -> None:
        """One more instance of the study arrives."""
        self._stored += 1
        self.ledger.add_instance(instance(self._stored, at=self.ledger.clock.now()))

    def order(self) -> None:
        """The EHR tells of an order of the study."""
        self._orders += 1
        order = Order(accession_number=f"A{self._orders}")
        self.ledger.link(STUDY, StudyContext(patient=Patient(), order=(order,)), 0)

    def route(self) -> None:
        """The complete study gives the job of its present input set."""
        self._routed += 1
        self.ledger.route(STUDY, self._revision(), [draft(self._routed)], "rule r")

    def queue(self) -> None:
        """Everything up to a queued job."""
        for event in (StudyEvent.INSTANCE_STORED, StudyEvent.RELEASED, StudyEvent.JOBS_MADE):
            self.study_events[event]()

    def overtake(self) -> None:
        """A late instance gives the series a newer input set."""
        self.queue()

    def claim(self) -> None:
        """A worker takes the job."""
        self._claim = self.ledger.claim("w", 60) or self._claim

    def refuse(self) -> None:
        """The gate refuses the result, or no valid message can be written about it."""
        with suppress(LeaseLost):
            self.ledger.commit(self._held(), outcome(self.job, status="refused"))
        self.ledger.hold_back(self.job, "no message")

    def deliver(self, receipt: Receipt, only: DestinationName | None = None) -> None:
        """Every destination gives the same answer until nothing is due."""
        for destination in (PACS, EHR) if only is None else (only,):
            for one in self.ledger.claim_deliveries(destination, 60, 10):
                self.ledger.settle(one, receipt, None)

    def claim_deliveries(self) -> None:
        """The EHR's dispatcher takes what is due."""
        self.ledger.clock.time += 10  # type: ignore[attr-defined]
        self._deliveries = list(self.ledger.claim_deliveries(EHR, 60, 10)) or self._deliveries

    def settle(self, receipt: Receipt, next_try: float | None, proof_due: float | None = None) -> None:
        """The EHR answers."""
        for one in self._deliveries:
            self.ledger.settle(one, receipt, next_try, proof_due=proof_due)

    def prove(self, finding: Receipt, next_try: float | None) -> None:
        """Somebody looks whether the EHR has what it says it has."""
        self.ledger.clock.time += 10  # type: ignore[attr-defined]
        for one in self.ledger.claim_proofs(EHR, 0, 10):
            self.ledger.settle_proof(one, finding, next_try)

    def reject(self) -> None:
        """The EHR refuses it, or turns out to have something else."""
        self.settle(NO, None)
        self.prove(NO, None)

    def retract(self) -> None:
        """The result is taken back, and the PACS has to be told."""
        self.ledger.retract(self.job, [notice(self.job)], "recalled")

    def withdraw(self) -> None:
        """The result is taken back, and a correction takes the place of the message."""
        self.retract()
        self.ledger.withdraw(int(str(self._message()["id"])), "a correction takes its place")

    def retract_refusal(self) -> None:
        """That the images were not processed was told to all, and is taken back."""
        if self.job_state() == JobState.QUARANTINED.value:
            self.ledger.replay_job(self.job)  # one that no worker could do was told to nobody
            self.claim()
            self.refuse()
            self.ledger.tell_refusal(self.job, deliveries(self.job))
            self.retract()

    def replay_message(self) -> None:
        """A person sends the message again."""
        self.ledger.replay_delivery(self._message()["id"])

    def replay_job(self) -> None:
        """A person has the job done again, or its dead deliveries sent again."""
        dead = [row for row in self.ledger.list_deliveries() if row["state"] == "dead"]
        for row in dead:
            self.ledger.replay_delivery(row["id"])
        if not dead:
            self.ledger.replay_job(self.job)

    def report_again(self, kind: ReportKind = ReportKind.CORRECTED) -> None:
        """Somebody asks for one more edition of the report, and the pipeline writes it."""
        with suppress(ReportRefused, NotFound):
            self.ledger.request_report(self.job, kind, by="A")
        for job, edition in self.ledger.unwritten_editions():
            draft = DeliveryDraft(
                job_id=job.id,
                destination=EHR,
                payload=Payload.MESSAGE,
                role="oru",
                key=f"c{job.id[:15]}-{edition.number}",
                file="f",
                patient_key="p",
                report_key=job.id,
            )
            self.ledger.publish(edition, [draft])

    def study_state(self) -> str:
        """As the ledger has it."""
        return str(self.ledger.list_studies()[0]["state"])

    def job_state(self) -> str:
        """As the ledger has it."""
        return str(next(row["state"] for row in self.ledger.list_jobs() if row["id"] == self.job))

    def delivery_state(self) -> str:
        """Of the message, as the ledger has it."""
        return str(self._message()["state"])

    def _message(self) -> dict[str, object]:
        return next(row for row in self.ledger.list_deliveries() if row["key"].startswith("c"))

    def _revision(self) -> int:
        return int(self.ledger.list_studies()[0]["revision"])

    def _held(self) -> Claim:
        if self._claim is None:
            raise LeaseLost("nobody has ever claimed it")
        return self._claim


_S = TypeVar("_S", bound=Enum)
_E = TypeVar("_E", bound=Enum)


def ways(table: Mapping[tuple[_S, _E], _S], start: _S) -> dict[_S, list[_E]]:
    """The shortest way from the first state to every state that can be reached at all."""
    found: dict[_S, list[_E]] = {start: []}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for (state, event), after in table.items():
            if state is here and after not in found:
                found[after] = [*found[here], event]
                waiting.append(after)
    return found


def inbound(control_id: str = "1", content: str = "x", raw: bytes = b"MSH|") -> InboundDraft:
    """A message that has just arrived."""
    return InboundDraft(
        identity=digest("EHR", control_id),
        sha256=digest(content),
        sender="EHR",
        control_id=control_id,
        address="127.0.0.1",
        size=len(raw),
        raw=raw,
    )


class InboundStory:
    """One message from the EHR, and how to make each event of its table happen to it."""

    def __init__(self, directory: Path) -> None:
        self.ledger = make_ledger(directory)
        self.ledger.add_messages([inbound()])
        self._id = self.ledger.unread_messages(1)[0].id
        self.events: Mapping[InboundEvent, Callable[[], object]] = {
            InboundEvent.UNDERSTOOD: lambda: self._settle(InboundEvent.UNDERSTOOD),
            InboundEvent.OF_NO_USE: lambda: self._settle(InboundEvent.OF_NO_USE),
            InboundEvent.NOT_UNDERSTOOD: lambda: self._settle(InboundEvent.NOT_UNDERSTOOD),
            InboundEvent.CONTRADICTED: self.contradict,
            InboundEvent.REPLAYED: lambda: self.ledger.replay_message(self._id),
        }

    def contradict(self) -> None:
        """From here on the story is about another message that came with the same MSH-10."""
        self.ledger.add_messages([inbound(content="y")])
        self._id = self.ledger.list_messages()[0]["id"]

    def state(self) -> str:
        """Where the message stands."""
        return next(row["state"] for row in self.ledger.list_messages() if row["id"] == self._id)

    def _settle(self, event: InboundEvent) -> None:
        self.ledger.settle_messages([Reading(message_id=self._id, event=event)])


def happen(events: Mapping[_E, Callable[[], object]], event: _E) -> None:
    """Makes an event happen; that the ledger refuses it is one of the right answers."""
    with suppress(IllegalTransition, LeaseLost):
        events[event]()
