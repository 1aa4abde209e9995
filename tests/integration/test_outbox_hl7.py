"""The outbox against a receiver that does everything wrong, and against receivers that others wrote."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hl7.client import MLLPClient

from gateway.deliver.dispatch import Dispatcher, through_ehr
from gateway.domain.context import Subject
from gateway.domain.errors import LedgerError
from gateway.domain.ids import DestinationName
from gateway.domain.job import DeliveryDraft, Payload, Verdict
from gateway.domain.states import JobEvent
from gateway.hl7.acknowledgement import control_id
from gateway.orders.inbox import OrderInbox
from gateway.orders.settings import OrderSettings
from gateway.report.mllp import MllpEhr, application_answers, into
from gateway.report.oru import build
from gateway.report.settings import CHARSETS, Hl7Destination
from gateway.store.spool import LocalSpool
from gateway.testing import Answer, FakeEhr
from tests.support.certificates import make_certificate
from tests.support.ledgers import EHR, Story
from tests.support.mllp import converse, framed, listening, msa
from tests.support.node import wait
from tests.support.outcomes import PATIENT, report, source
from tests.support.python_hl7 import python_hl7
from tests.support.received import STUDY


class Outbox:
    """A ledger with messages for an EHR, and its dispatcher."""

    def __init__(self, directory: Path, port: int, **more: object) -> None:
        self.story = Story(directory)
        self.spool = LocalSpool(directory / "spool")
        settings = {"kind": "hl7", "host": "127.0.0.1", "port": port, "timeout": "300ms", **more}
        to = Hl7Destination.model_validate(settings)
        self.to = to
        ledger = self.story.ledger
        self.ehr = MllpEhr(to, into(ledger))
        send, prove = through_ehr(self.ehr, self.spool), application_answers(to, self.spool, ledger.clock)
        self.dispatcher = Dispatcher(EHR, send, ledger, ledger.clock, prove=prove, listen=self.ehr.listen)
        self.story.queue()
        for event in (JobEvent.CLAIMED, JobEvent.COMMITTED):
            self.story.job_events[event]()

    def plan(self, *patients: str, more: str = "") -> None:
        """A message about each patient, numbered by its place."""
        drafts = [
            DeliveryDraft(
                job_id=self.story.job,
                destination=EHR,
                payload=Payload.MESSAGE,
                role="oru",
                key=f"C{number}",
                file=self.spool.put(f"message {number}", [_message(f"C{number}") + more.encode()]),
                subject=Subject(patient=PATIENT),
                edition=1,
                patient_key=patient,
                report_key=f"report {number}",
            )
            for number, patient in enumerate(patients)
        ]
        self.story.ledger.plan(self.story.job, drafts)

    def deliver(self, rounds: int = 40) -> None:
        """Works until nothing is on its way, with the clock moved to whatever is due next."""
        for _ in range(rounds):
            while self.dispatcher.deliver_due():
                pass
            clock = self.story.ledger.clock
            later = [
                row["next_try"] for row in self.rows() if row["state"] == "waiting" and row["next_try"] > clock.now()
            ]
            if not later:
                return
            clock.time = min(later)  # type: ignore[attr-defined]

    def rows(self) -> list[dict[str, Any]]:
        """All deliveries, oldest first."""
        return list(self.story.ledger.list_deliveries())[::-1]


def _message(named: str) -> bytes:
    head = f"MSH|^~\\&|HILUM||EHR||20240101||ORU^R01^ORU_R01|{named}|P|2.5.1|||AL|AL"
    return f"{head}\rPID|1||P1||Doe^Jane\r".encode()


@pytest.mark.parametrize(
    ("script", "state", "tries"),
    [
        (["none", "AA"], "delivered", 2),
        (["late", "none"], "delivered", 2),
        (["wrong id", "AA"], "delivered", 2),
        (["AE", "AA"], "delivered", 2),
        (["AE", "AE", "CE", "AA"], "delivered", 4),
        (["CE", "CA"], "delivered", 2),
        (["garbage", "AA"], "delivered", 2),
        (["close", "AA"], "delivered", 2),
        (["half", "AA"], "delivered", 2),
        (["half", "close", "garbage", "wrong id", "CE", "none", "AE", "AA"], "delivered", 8),
        (["AA, close"], "delivered", 1),
        (["twice"], "delivered", 1),
        (["AR"], "dead", 1),
        (["AE", "CR"], "dead", 2),
    ],
)
def test_each_script_ends_right(tmp_path: Path, script: list[Answer], state: str, tries: int) -> None:
    """However often it is sent, the receiver has one logical message of the same bytes."""
    with FakeEhr(script) as peer:
        outbox = Outbox(tmp_path, peer.port)
        outbox.plan("p")
        outbox.deliver()
        (row,) = outbox.rows()
    assert (row["state"], row["attempts"]) == (state, tries)
    assert peer.control_ids == {"C0"}
    assert len(set(peer.messages)) == 1


def test_a_slow_reader_is_waited_for_and_one_that_stops_is_not(tmp_path: Path) -> None:
    """Each piece has the time that the whole has: 2 MB in drips arrive at once. A receiver that takes nothing more is left."""
    with FakeEhr(slow=16384) as peer:
        outbox = Outbox(tmp_path, peer.port)
        outbox.plan("p", more="OBX|1|TX|||" + "x" * 2_000_000)
        outbox.deliver()
        (row,) = outbox.rows()
    assert (row["state"], row["attempts"]) == ("delivered", 1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as stopped:
        client = MllpEhr(outbox.to.model_copy(update={"port": stopped.getsockname()[1]}))
        receipt = client.send(_message("C0") + b"x" * 30_000_000)
        client.close()
    assert (receipt.verdict, receipt.answered) == (Verdict.RETRY, False)


def test_order_of_a_patient_is_kept_and_others_are_not_held_up(tmp_path: Path) -> None:
    """The first message of p is not accepted three times; q passes meanwhile, the second of p comes after the first."""
    with FakeEhr(["AE", "AA", "AE", "AE", "AA", "AA"]) as peer:
        outbox = Outbox(tmp_path, peer.port)
        outbox.plan("p", "q", "p")
        outbox.deliver()
        arrived = [control_id(message) for message in peer.messages]
    assert arrived == ["C0", "C1", "C0", "C0", "C0", "C2"]
    assert {row["state"] for row in outbox.rows()} == {"delivered"}


def test_a_receiver_that_is_gone_is_not_asked_for_every_message(tmp_path: Path) -> None:
    """One try a round while nobody answers, however many messages wait; then everything arrives, in order."""
    with FakeEhr(["none"] * 3) as peer:
        outbox = Outbox(tmp_path, peer.port)
        outbox.plan(*(f"p{number}" for number in range(10)))
        outbox.dispatcher.deliver_due()
        assert len(peer.messages) == 1
        outbox.deliver()
    assert len(peer.control_ids) == 10


class Deferred(Outbox):
    """With a port of our own, to which the receiver's application says later what it thinks."""

    def __init__(self, directory: Path, port: int, acknowledgement: str = "deferred") -> None:
        super().__init__(directory, port, acknowledgement=acknowledgement, application_timeout="1h")
        settings = OrderSettings(port=0)
        self.inbox = OrderInbox(self.story.ledger, self.spool, settings.conventions(), settings.codec)
        self._said = 0

    def hears(self, peer: FakeEhr, answers: int) -> None:
        """Listens until so many answers that came on its own connection are acknowledged."""
        wait(lambda: self.ehr.listen() or len(peer.acknowledgements) == answers)

    def say(self, code: str, named: str, text: str = "", processing_id: str = "P") -> None:
        """The application's answer over the wire; it has an answer itself, and is read."""
        self._said += 1
        head = f"MSH|^~\\&|EHR||HILUM||20240101||ACK^R01^ACK|E{self._said}|{processing_id}|2.5.1|||AL|NE"
        with listening(self.inbox.take) as server:
            (answer,) = converse(server.port, framed(f"{head}\rMSA|{code}|{named}|{text}\r"))
        assert msa(answer)[:2] == ["CA", f"E{self._said}"]
        self.inbox.read_waiting()

    def work(self, later: float = 0.0) -> list[tuple[str, str]]:
        """Sends and proves what is due after so many seconds; state and last answer of each."""
        self.story.ledger.clock.time += later  # type: ignore[attr-defined]
        while self.dispatcher.deliver_due() + self.dispatcher.prove_due():
            pass
        return [(row["state"], row["last_answer"]) for row in self.rows()]


def test_an_application_answers_on_another_connection(tmp_path: Path) -> None:
    """CA is not the end: the message waits for its application, and so does the next about the same patient. AE: the same
    bytes again; an answer to another message, or a second CA, counts for nothing; AA delivers, AR is a dead letter."""
    with FakeEhr(["CA"] * 9) as peer:
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p", "p", "q")
        assert [state for state, _ in outbox.work()] == ["stored", "waiting", "stored"]
        outbox.say("AA", "C7")
        outbox.say("CA", "C0")
        assert [state for state, _ in outbox.work(600)] == ["stored", "waiting", "stored"]
        outbox.say("AE", "C0", "locked, Jane Doe")
        outbox.say("AR", "C2", "no such order")
        (first, _, third) = outbox.work()
        assert first == ("waiting", "CA, then AE: locked, … …")
        assert third == ("dead", "CA, then AR: no such order")
        assert [state for state, _ in outbox.work(600)] == ["stored", "waiting", "dead"]
        outbox.say("AA", "C0")
        assert [state for state, _ in outbox.work()] == ["delivered", "stored", "dead"]
        outbox.say("AA", "C1")
        assert outbox.work()[:2] == [("delivered", "CA, then AA")] * 2
    assert [control_id(message) for message in peer.messages] == ["C0", "C2", "C0", "C1"]
    assert len(set(peer.messages)) == 3


def test_an_application_that_never_answers_is_a_dead_letter(tmp_path: Path) -> None:
    """After its time, and not sent again by itself: it is safe there. A person replays it, and then AA counts, also one that
    comes before CA is written down."""
    with FakeEhr(["CA", "CA", "AA"], on_message=lambda _: heard and outbox.say("AA", "C0")) as peer:
        heard = False
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p")
        assert outbox.work(3000)[0][0] == "stored"
        ((state, answer),) = outbox.work(700)
        until = datetime.fromtimestamp(outbox.rows()[0]["stored_at"] + 3600, UTC)
        assert (state, answer) == ("stored", f"CA; the application has until {until:%Y-%m-%d %H:%M:%SZ} to answer")
        assert outbox.work(3600) == [("dead", "CA, but no application acknowledgement within 3600 s")]
        heard = True
        (row,) = outbox.rows()
        outbox.story.ledger.replay_delivery(row["id"])
        assert outbox.work() == [("delivered", "CA, then AA")]
    assert len(peer.messages) == 2


def test_a_receiver_that_knows_the_original_mode_only(tmp_path: Path) -> None:
    """AA at once is the application's answer."""
    with FakeEhr() as peer:
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p")
        assert outbox.work() == [("delivered", "AA")]


def test_an_application_answers_later_on_the_same_connection(tmp_path: Path) -> None:
    """While nothing is sent, before the acceptance of the next message, and with its own: each answer finds its message, is
    acknowledged, and has its consequence; the connection stays, and nothing is sent again for it."""
    with FakeEhr(["CA", "CA", "CA, AA", "CA"]) as peer:
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p", "q")
        assert [state for state, _ in outbox.work()] == ["stored", "stored"]
        peer.say("AE", "C0", "locked")
        peer.say("AR", "C1", "no such order")
        outbox.hears(peer, 2)
        assert outbox.work() == [("waiting", "CA, then AE: locked"), ("dead", "CA, then AR: no such order")]
        assert outbox.work(600)[0] == ("delivered", "CA, then AA")
        outbox.story.ledger.replay_delivery(outbox.rows()[1]["id"])
        assert outbox.work()[1][0] == "stored"
        peer.say("AA", "C1")
        outbox.hears(peer, 3)
        assert outbox.work() == [("delivered", "CA, then AA")] * 2
    assert [control_id(message) for message in peer.messages] == ["C0", "C1", "C0", "C1"]
    assert peer.connections == 1
    assert {msa(answer)[0] for answer in peer.acknowledgements} == {"CA"}


def test_answers_to_earlier_messages_come_before_that_to_the_next(tmp_path: Path) -> None:
    """A receiver that says AA of the first message when it has the second, before it accepts that one."""
    with FakeEhr(["CA"] * 3, on_message=lambda raw: before.get(control_id(raw), lambda: None)()) as peer:
        before = {"C1": lambda: peer.say("AA", "C0"), "C2": lambda: peer.say("AR", "C1", "unknown")}
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p", "q", "r")
        assert [state for state, _ in outbox.work()] == ["delivered", "dead", "stored"]
    assert len(peer.messages) == 3
    assert peer.connections == 1


def test_an_answer_that_cannot_be_kept_is_not_acknowledged(tmp_path: Path) -> None:
    """With the ledger away the connection is given up: the receiver has no acknowledgement, and may say it again."""
    with FakeEhr(["CA"]) as peer:
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p")
        outbox.work()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(outbox.story.ledger), "hear_applications", _away)
            peer.say("AA", "C0")
            wait(lambda: outbox.ehr.listen() or not outbox.ehr.connected)
        assert peer.acknowledgements == []
        assert outbox.work()[0][0] == "stored"
        outbox.say("AA", "C0")
        assert outbox.work() == [("delivered", "CA, then AA")]


def _away(*_: object) -> None:
    raise LedgerError("the ledger cannot be reached")


def test_both_answers_are_wanted_and_the_second_is_late(tmp_path: Path) -> None:
    """`application`: what comes at once decides at once. What comes later has its consequence all the same; a message of which
    nothing is heard counts as delivered when the time is over, and bad news after that is told."""
    with FakeEhr(["CA, AA", "CA, AE", "CA", "CA"]) as peer:
        outbox = Deferred(tmp_path, peer.port, "application")
        outbox.plan("p", "q")
        assert outbox.work()[0] == ("delivered", "CA, then AA")
        assert outbox.work()[1] == ("waiting", "CA, then AE")
        assert outbox.work(600)[1][0] == "stored"
        peer.say("AR", "C1", "no such patient")
        outbox.hears(peer, 1)
        assert outbox.work()[1] == ("dead", "CA, then AR: no such patient")
        outbox.story.ledger.replay_delivery(outbox.rows()[1]["id"])
        assert outbox.work()[1][0] == "stored"
        assert outbox.work(4000)[1] == ("delivered", "CA, but no application acknowledgement within 3600 s")
        peer.say("AE", "C1")
        outbox.hears(peer, 2)
        story = [(event["what"], event["detail"]) for event in outbox.story.ledger.explain(STUDY)["events"]]
        assert ("application refuses", f"oru to {EHR}: AE") in story
    assert peer.connections == 1


def test_a_message_for_trials_is_answered_for_trials(tmp_path: Path) -> None:
    """MSH-11 of an answer is that of its message: what counts is MSA-2."""
    with FakeEhr(["CA"]) as peer:
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p")
        outbox.work()
        outbox.say("AA", "C0", processing_id="T")
        assert outbox.work() == [("delivered", "CA, then AA")]


_SENDER = """
import sys
from pathlib import Path
from tests.integration.test_outbox_hl7 import resume
resume(Path(sys.argv[1]), int(sys.argv[2]))
"""


def resume(directory: Path, port: int) -> None:
    """Delivers what is due in a ledger that exists, as a gateway that has been started again."""
    from gateway.bootstrap import SystemClock
    from gateway.store.ledger import open_ledger

    ledger = open_ledger(f"sqlite:///{directory / 'ledger.db'}", SystemClock())
    ledger.recover()
    to = Hl7Destination.model_validate({"kind": "hl7", "host": "127.0.0.1", "port": port, "timeout": "20s"})
    dispatcher = Dispatcher(
        DestinationName(EHR), through_ehr(MllpEhr(to), LocalSpool(directory / "spool")), ledger, SystemClock()
    )
    while dispatcher.deliver_due():
        pass


def test_killed_between_send_and_acknowledgement(tmp_path: Path) -> None:
    """SIGKILL when the receiver has the message and has not answered: after the restart the same MSH-10 comes again."""
    arrived = threading.Event()
    killed = threading.Event()

    def on_message(_: bytes) -> None:
        arrived.set()
        assert killed.wait(30)

    with FakeEhr(on_message=on_message) as peer:
        outbox = Outbox(tmp_path, peer.port)
        outbox.plan("p")
        outbox.story.ledger.close()
        command = [sys.executable, "-c", _SENDER, str(tmp_path), str(peer.port)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        assert arrived.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed.set()
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=60)
        assert peer.control_ids == {"C0"}
        assert len(peer.messages) == 2
        assert len(set(peer.messages)) == 1
    (row,) = outbox.rows()
    assert row["state"] == "delivered"


NAMES = {
    "ASCII": "Doe^Jane", "8859/1": "Müller^Jürgen", "8859/2": "Dvořák^Łukasz", "8859/3": "Ĝis^Ĉu", "8859/4": "Ķirsis^Ģirts",
    "8859/5": "Люксембург^Иван", "8859/6": "قباني^لنزار", "8859/7": "Διονυσιος^Ανδρεας", "8859/8": "שרון^דבורה",
    "8859/9": "Çavuşoğlu^İpek", "8859/15": "Œuvre^Zoë", "SHIFT_JIS": "Yamada^T=表^十兵衛", "ISO IR87": "Yamada^T=山田^太郎",
    "KS X 1001": "Hong^G=洪^吉洞=홍^길동", "BIG-5": "Ye^D=許^功蓋", "GB 18030-2000": "Ye^D=葉^大雄", "UNICODE UTF-8": "Ye^D=葉^㐂",
}  # fmt: skip


@pytest.mark.parametrize("secure", [False, True])
def test_python_hl7_reads_our_messages(secure: bool, tmp_path: Path) -> None:
    """Plain and by TLS with certificates of both sides, in every character set that can be sent; names are whole, and its
    acknowledgement counts."""
    assert set(NAMES) == set(CHARSETS)
    certificate, ours = make_certificate(tmp_path), make_certificate(tmp_path, "127.0.0.2")
    context = certificate.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ours.certificate)
    files = {"ca_file": str(certificate.certificate), "cert_file": str(ours.certificate), "key_file": str(ours.key)}
    for charset, name in NAMES.items():
        header = source(replace(PATIENT, name=name))
        with python_hl7(CHARSETS[charset], context if secure else None) as peer:
            settings = {"kind": "hl7", "host": "127.0.0.1", "port": peer.port, "charset": charset}
            to = Hl7Destination.model_validate(settings | ({"tls": files} if secure else {}))
            client = MllpEhr(to)
            receipts = [client.send(build(report(header=header), to)).answer for _ in range(2)]
            client.close()
        assert receipts == ["AA"] * 2, charset
        names = str(peer.received[0].segment("PID")[5]).split("~")
        assert [one.split("^^")[0] for one in names] == name.split("="), charset


def test_an_application_behind_python_hl7(tmp_path: Path) -> None:
    """Its server accepts (CA) what we have written, and its acknowledgements (AA) come later: one on the same connection while
    another message is sent, one to our own port by its client."""
    with python_hl7("utf-8", codes=("CA",)) as peer:
        outbox = Deferred(tmp_path, peer.port)
        outbox.plan("p", "q")
        assert [state for state, _ in outbox.work()] == ["stored", "stored"]
        first, second = peer.received
        peer.say(first.create_ack("AA"))
        wait(lambda: outbox.ehr.listen() or outbox.work()[0][0] == "delivered")
        with listening(outbox.inbox.take) as server, MLLPClient("127.0.0.1", server.port) as client:
            assert b"MSA|AA|" in client.send_message(second.create_ack("AA"))
        outbox.inbox.read_waiting()
        assert outbox.work() == [("delivered", "CA, then AA")] * 2
    assert len(peer.received) == 2
