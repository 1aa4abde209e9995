"""An order, images, merges, updates, a worker, a person who confirms, and an EHR that answers once, twice or not, in any
order: messages never name anybody but whom the EHR knows at that moment, and in the end they name the same patient and the same
order, whatever came first."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.context import Subject
from gateway.domain.errors import ReportRefused
from gateway.domain.ids import AssociationId, DestinationName, JobId, ModelName, digest
from gateway.domain.job import Claim, Edition, Job, Priority, ReportKind
from gateway.domain.ports import StudyRecord
from gateway.domain.states import DeliveryState
from gateway.domain.study import Header, Patient
from gateway.hl7.head import read_head
from gateway.hl7.server import Received
from gateway.hold.assembly import Release
from gateway.letters import Compose, Letters, WrittenReport
from gateway.orders.inbox import OrderInbox
from gateway.orders.linker import Linker
from gateway.orders.reading import Conventions
from gateway.pipeline import Pipeline
from gateway.retraction import Retraction
from gateway.route.rules import compile_expression
from gateway.route.selection import Model, RoutingRule
from gateway.store.ledger import SqlLedger
from tests.support import hl7
from tests.support.ledgers import EHR, LATER, MISSING, NO, PACS, YES, make_ledger, outcome
from tests.support.manifests import plain_manifest
from tests.support.received import STUDY, instance

NAME = "Wang^XiaoDong^^^^^L^A~王^小東^^^^^L^I"
PATIENT = Patient(patient_id="P1", name="Wang^XiaoDong=王^小東", birth_date="19800101", sex="M")
MERGES = {  # who became whom, in the order in which it happened -> who P1 is after each
    "one": [("P1", "P2")],
    "chain": [("P1", "P2"), ("P2", "P3")],
    "there and back": [("P1", "P2"), ("P2", "P1")],
    "round": [("P1", "P2"), ("P2", "P3"), ("P3", "P1")],
    "twice": [("P1", "P2"), ("P1", "P3")],
    "into somebody merged": [("P2", "P3"), ("P1", "P2")],
    "others": [("Q1", "Q2"), ("P2", "P3")],
}


def who(merges: list[tuple[str, str]]) -> str:
    """Who P1 is after these merges: a register of living patients, as a registrar would keep it."""
    living: dict[str, str] = {}  # who was merged -> into whom
    for prior, surviving in merges:
        seen, at = {surviving}, surviving
        while at in living and living[at] not in seen:
            at = living[at]
            seen.add(at)
        if prior in seen:
            living.pop(surviving, None)
        living[prior] = surviving
    at = "P1"
    while at in living:
        at = living[at]
    return at


class Shelf:
    """A spool that does not wait for the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, name: str, chunks: Sequence[bytes | memoryview]) -> str:
        """Keeps a file."""
        key = digest(name)
        (self._directory / key).write_bytes(b"".join(chunks))
        return key

    def path(self, key: str) -> Path:
        """Where it is."""
        return self._directory / key


class Bell:
    """A broker that nobody hears."""

    def ring(self, job_id: JobId, queue: str) -> None:
        """Nothing."""


class AtOnce:
    """Releases every study that is open."""

    next_look = float("inf")

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger

    def verdicts(self) -> Iterator[tuple[StudyRecord, Release]]:
        """Whatever is there."""
        return ((record, Release(reason="enough")) for record in self._ledger.open_studies())


def compose(_job: Job, header: Header, subject: Subject, edition: Edition, control_id: str) -> WrittenReport:
    """A message that says only what matters here."""
    said = {
        "patient": header.patient.patient_id,
        "placer": subject.placer_number[0].id if subject.placer_number else "",
        "edition": edition.number,
    }
    return WrittenReport(
        content=json.dumps(said).encode(),
        role="oru",
        patient_key=digest("patient", header.patient.patient_id),
        report_key="report",
    )


class World:
    """A gateway's inside with everything real but the model, the sockets and the clock."""

    def __init__(self, directory: Path, merges: list[tuple[str, str]], write: Compose = compose) -> None:
        self.ledger, self.spool = make_ledger(directory), Shelf(directory)
        self.ledger.open_association(AssociationId("a1"), "CT1", "127.0.0.1")
        self.inbox = OrderInbox(self.ledger, self.spool, Conventions(zone=None), "utf-8")
        self.merges = merges
        self.accepted: list[dict[str, object]] = []  # what the EHR has taken, in order
        self._claims: list[Claim] = []
        model = Model(
            name=ModelName("m"),
            manifest=plain_manifest(input={"modality": ["MR"], "geometry": {"slices": {"min": 2, "max": 10}}}),
            digest=digest("m"),
            select=compile_expression("true", "select"),
        )
        rule = RoutingRule(
            name="r",
            when=compile_expression("true", "when"),
            run=(model.name,),
            deliver=(PACS, EHR),
            priority=Priority.ROUTINE,
        )
        self.pipeline = Pipeline(
            stranded_after=3600.0,
            ledger=self.ledger,
            spool=self.spool,
            broker=Bell(),
            rules=[rule],
            models={model.name: model},
            holder=AtOnce(self.ledger),  # type: ignore[arg-type]
            roles={PACS: frozenset({"seg"})},
            fallbacks={},
            letters=Letters(self.ledger, self.spool, {EHR: write}),
            inbox=self.inbox,
            linker=Linker(self.ledger, self.spool),
            retraction=Retraction(
                ledger=self.ledger,
                spool=self.spool,
                clock=self.ledger.clock,
                takes_notes=frozenset(),
                cancel_report=lambda job, why: None,
            ),
        )

    def tell(self, text: str) -> None:
        """A message comes in, and is acknowledged."""
        raw = text.encode()
        self.inbox.take([Received(raw, read_head(raw), "127.0.0.1")])

    def event(self, name: str) -> None:
        """Something that happens outside."""
        if name == "order":
            self.tell(hl7.order("order", name=NAME, time="20261124080000"))
        elif name == "update":
            self.tell(hl7.adt("A08", "update", name=NAME.replace("小東", "曉東"), time="20261124080100"))
        elif name == "report":
            self.tell(hl7.report("report"))
        elif name == "images":
            for number in (1, 2, 3):
                key = self.spool.put(f"image {number}", [b"no header of use"])
                made = instance(number, patient=PATIENT, accession_number="A1")
                self.ledger.add_instance(type(made)(**{**vars(made), "file": key}))
        else:
            number = int(name.removeprefix("merge "))
            prior, surviving = (f"{one}^^^HOSP" for one in self.merges[number])
            time = f"2026112409{number:02d}00"
            self.tell(hl7.adt("A40", name, patient=surviving, prior=prior, name=NAME, time=time))

    def step(self, name: str) -> None:
        """Something that a process of the gateway does."""
        if name == "advance":
            for step in self.pipeline.steps:
                step()
        elif name == "hear":  # facts are there, and what they mean for studies is not worked out yet
            self.pipeline.hear()
        elif name == "result":  # all the way to a message that waits to be sent
            for part in ("advance", "work", "advance", "objects"):
                self.step(part)
        elif name == "work":
            if claim := self.ledger.claim("w", 60):
                self.ledger.commit(claim, outcome(claim.job.id))
        elif name == "objects":
            self._send(PACS, YES)
        elif name == "confirm":
            with suppress(IndexError, ReportRefused):
                self.ledger.request_report(self.ledger.list_jobs()[0]["id"], ReportKind.FINAL, by="A")
        elif name in ("aa", "ae"):  # the application says what it thinks of a message that was stored
            for item in self.ledger.claim_proofs(EHR, 0, 1):
                if name == "aa":
                    self.accepted.append(json.loads(self.spool.path(item.draft.file).read_bytes()))
                self.ledger.settle_proof(item, YES if name == "aa" else MISSING, self.ledger.clock.now())
        else:
            self._send(EHR, {"yes": YES, "ca": YES, "later": LATER, "no": NO}[name], stored=name == "ca")

    def _send(self, destination: DestinationName, receipt: object, *, stored: bool = False) -> None:
        for item in self.ledger.claim_deliveries(destination, 60, 1):
            if destination == EHR:
                said = json.loads(self.spool.path(item.draft.file).read_bytes())
                assert said["patient"] == self.expected(), "a message names somebody else"
                if receipt is YES and not stored:
                    self.accepted.append(said)
            again = self.ledger.clock.now() + 5 if receipt is LATER else None
            due = self.ledger.clock.now() if stored else None
            self.ledger.settle(item, receipt, again, proof_due=due)  # type: ignore[arg-type]

    def expected(self) -> str:
        """Who P1 is by the merges that were read so far."""
        kinds = [row for row in self.ledger.list_messages(100) if row["state"] == "applied"]
        known = sorted(row["control_id"] for row in kinds if row["control_id"].startswith("merge"))
        return who([self.merges[int(name.removeprefix("merge "))] for name in known])

    def settle(self) -> None:
        """Everything comes to rest, and the EHR takes what is left."""
        for _ in range(8):
            self.ledger.clock.time += 4000  # type: ignore[attr-defined]
            for name in ("advance", "work", "advance", "objects", "aa", "yes", "yes"):
                self.step(name)


STEPS = st.lists(
    st.sampled_from(
        ["advance", "hear", "hear", "result", "result", "yes", "yes", "later", "no", "confirm", "ca", "ca", "aa", "ae"]
    ),
    max_size=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_order_of_arrival_ends_the_same(data: st.DataObject) -> None:
    """What is drawn: who became whom, in which order everything comes, and what happens in between."""
    merges = MERGES[data.draw(st.sampled_from(sorted(MERGES)), label="merges")]
    events = ["order", "update", "report", "images", *(f"merge {number}" for number in range(len(merges)))]
    order = data.draw(st.permutations(events), label="order of arrival")
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), merges)
        with closing(world.ledger):
            for name in order:
                world.event(name)
                for step in data.draw(STEPS, label=f"after {name}"):
                    world.step(step)
            world.settle()
            _assert_ended(world)


def test_nothing_leaves_between_hearing_and_linking(tmp_path: Path) -> None:
    """A message waits to be sent when a merge is read: it does not go before it names who the patient is now."""
    world = World(tmp_path, MERGES["one"])
    for name in ("order", "images"):
        world.event(name)
    world.step("result")
    world.event("merge 0")
    world.step("hear")
    world.step("yes")
    assert world.accepted == []
    world.step("advance")
    world.step("yes")
    assert world.accepted == [{"patient": "P2", "placer": "PL1", "edition": 1}]
    world.ledger.close()


def test_what_may_have_been_seen_does_not_go_again(tmp_path: Path) -> None:
    """The EHR was away when the message was tried; after the merge it gets the correction, and never the first one."""
    world = World(tmp_path, MERGES["one"])
    for name in ("order", "images"):
        world.event(name)
    for step in ("result", "later"):
        world.step(step)
    world.event("merge 0")
    world.settle()
    assert world.accepted == [{"patient": "P2", "placer": "PL1", "edition": 2}]
    states = {row["key"]: row["state"] for row in world.ledger.list_deliveries() if row["role"] == "oru"}
    assert sorted(states.values()) == ["delivered", "withdrawn"]
    world.ledger.close()


def _assert_ended(world: World) -> None:
    (job,) = world.ledger.list_jobs()
    (letter,) = world.ledger.letters_about(STUDY)
    assert letter.subject.patient.patient_id == who(world.merges)
    assert letter.subject.placer_number[0].id == "PL1"
    if letter.state is DeliveryState.DELIVERED:
        last = world.accepted[-1]
        assert (last["patient"], last["placer"]) == (who(world.merges), "PL1")
    else:  # the EHR has refused the last message for good, and nothing has changed since
        assert (job["state"], letter.state.value) == ("undelivered", "dead")
    assert [report.status for report in (world.ledger.study_context(STUDY) or world).reports] == ["F"]  # type: ignore[union-attr]
