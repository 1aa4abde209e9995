"""Messages from the EHR into the real ledger, over the real port, from clients that others wrote."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hl7.mllp import open_hl7_connection

from gateway.domain.context import KeyKind, Order, patient_keys
from gateway.domain.errors import LedgerError
from gateway.orders.inbox import OrderInbox
from gateway.orders.settings import OrderSettings
from gateway.store.ledger import SqlLedger
from gateway.store.spool import LocalSpool
from tests.support import hl7
from tests.support.ledgers import make_ledger
from tests.support.mllp import converse, framed, listening, msa

NAMES = {
    "GB 18030-2000": ("gb18030", "葉^小東", "=葉^小東"),
    "GB18030": ("gb18030", "Ye^Xiaodong^^^^^L^A~葉^小東^^^^^L^I", "Ye^Xiaodong=葉^小東"),
    "BIG-5": ("cp950", "許^功蓋", "=許^功蓋"),
    "SHIFT_JIS": ("cp932", "表^ソノ", "=表^ソノ"),
    "~ISO IR87": ("iso2022_jp", "山田^太郎~Yamada^Tarou", "Yamada^Tarou=山田^太郎"),
    "KS X 1001": ("euc_kr", "홍^길동", "=홍^길동"),
    "8859/1": ("iso8859-1", "Müller^Jürgen", "Müller^Jürgen"),
    "UNICODE UTF-8": ("utf-8", "葉^㐂~Müller^Jürgen", "Müller^Jürgen=葉^㐂"),
    "": ("utf-8", "葉^小東", "=葉^小東"),  # named nowhere: what the configuration says
}


class Desk:
    """An inbox on a ledger and a spool of its own."""

    def __init__(self, directory: Path) -> None:
        self.ledger: SqlLedger = make_ledger(directory)
        self.spool = LocalSpool(directory / "spool")
        settings = OrderSettings(port=0)
        self.inbox = OrderInbox(self.ledger, self.spool, settings.conventions(), settings.codec)

    def messages(self) -> list[dict[str, Any]]:
        """What came, oldest first."""
        return list(self.ledger.list_messages())[::-1]

    def orders(self, patient: str = "P1", accession: str = "A1") -> list[Order]:
        """What was understood."""
        from gateway.domain.context import Key

        facts, _ = self.ledger.facts_about([Key(KeyKind.ACCESSION, accession), *patient_keys([patient])])
        return [fact.body for fact in facts if isinstance(fact.body, Order)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.ledger.close()


@pytest.mark.parametrize("charset", NAMES)
def test_names_in_every_character_set(desk: Desk, charset: str) -> None:
    """Bytes that look like delimiters do not cut a name in two."""
    codec, written, name = NAMES[charset]
    with listening(desk.inbox.take) as server:
        (answer,) = converse(server.port, framed(hl7.order(name=written, charset=charset), codec))
    assert msa(answer)[:2] == ["AA", "1"]
    assert desk.inbox.read_waiting() == 1
    (order,) = desk.orders()
    assert order.person.name == name
    assert order.accession_number == "A1"


def test_mllp_send_of_python_hl7(tmp_path: Path, desk: Desk) -> None:
    """A file full of messages as the command line client of python-hl7 sends it; repeated, nothing comes twice."""
    file = tmp_path / "messages"
    texts = [hl7.order("1"), hl7.adt("A08", "2"), hl7.adt("A40", "3", patient="P2^^^HOSP", prior="P1^^^HOSP")]
    file.write_bytes(b"".join(framed(text) for text in texts))
    tool = Path(sys.executable).with_name("mllp_send")
    with listening(desk.inbox.take) as server:
        for _ in range(2):
            command = [tool, "--file", file, "--port", str(server.port), "127.0.0.1"]
            done = subprocess.run(command, capture_output=True, timeout=30, check=True)
            assert done.stdout.count(b"MSA|AA|") == 3
            desk.inbox.read_waiting()
    assert [(row["kind"], row["state"], row["copies"]) for row in desk.messages()] == [
        ("ORM^O01", "applied", 2),
        ("ADT^A08", "applied", 2),
        ("ADT^A40", "applied", 2),
    ]


def test_asyncio_client_of_python_hl7_on_many_connections(desk: Desk) -> None:
    """Everything that was acknowledged is in the ledger, in far fewer transactions than messages."""
    commits: list[int] = []
    add = desk.ledger.add_messages
    desk.ledger.add_messages = lambda drafts: commits.append(len(drafts)) or add(drafts)  # type: ignore[func-returns-value,method-assign]

    async def send(port: int, client: int) -> list[str]:
        reader, writer = await open_hl7_connection("127.0.0.1", port, encoding="utf-8")
        codes = []
        for number in range(10):
            writer.writemessage(hl7.order(f"{client}-{number}"))
            await writer.drain()
            answer = await reader.readmessage()
            codes.append(str(answer.segment("MSA")[1]))
        writer.close()
        return codes

    async def all_of_them(port: int) -> list[list[str]]:
        return await asyncio.gather(*(send(port, client) for client in range(20)))

    with listening(desk.inbox.take) as server:
        codes = asyncio.run(all_of_them(server.port))
    assert codes == [["AA"] * 10] * 20
    assert sum(commits) == 200
    assert len(desk.ledger.list_messages(1000)) == 200
    while desk.inbox.read_waiting():
        pass
    assert {row["state"] for row in desk.ledger.list_messages(1000)} == {"applied"}


def test_a_batch(desk: Desk) -> None:
    """The messages between BHS and BTS count, and are acknowledged by the first one's MSH-10."""
    with listening(desk.inbox.take) as server:
        (answer,) = converse(server.port, framed(hl7.hl7(hl7.MIRTH_ORM)))
    assert msa(answer)[:2] == ["AA", "b-1"]
    desk.inbox.read_waiting()
    assert len(desk.ledger.list_orders()) == 2


def test_a_message_that_is_not_understood_is_kept_and_can_be_read_again(desk: Desk) -> None:
    """Acknowledged, since it is safe; a dead letter with its reason, which names nobody."""
    with listening(desk.inbox.take) as server:
        (answer,) = converse(server.port, framed(hl7.adt("A40", "9")))
    assert msa(answer)[0] == "AA"
    desk.inbox.read_waiting()
    (row,) = desk.ledger.dead_letters()["messages"]
    assert (row["state"], row["reason"]) == ("unreadable", "1 PID for 0 MRG: who became whom cannot be told")
    desk.ledger.replay_message(row["id"])
    assert desk.inbox.read_waiting() == 1
    assert len(desk.ledger.dead_letters()["messages"]) == 1


def test_the_same_control_id_with_other_content(desk: Desk) -> None:
    """The first counts; the second is kept where somebody sees it, and counts when that person says so."""
    with listening(desk.inbox.take) as server:
        for text in (hl7.order("7"), hl7.order("7", priority="S"), hl7.order("7", time="20261124080001")):
            (answer,) = converse(server.port, framed(text))
            assert msa(answer)[:2] == ["AA", "7"]
    desk.inbox.read_waiting()
    assert [(row["state"], row["copies"]) for row in desk.messages()] == [("applied", 2), ("conflict", 1)]
    (row,) = desk.ledger.dead_letters()["messages"]
    assert [order.priority for order in desk.orders()] == ["ROUTINE"]
    desk.ledger.replay_message(row["id"])
    desk.inbox.read_waiting()
    assert sorted(order.priority for order in desk.orders()) == ["ROUTINE", "STAT"]


def test_a_large_message_is_in_the_spool(desk: Desk) -> None:
    """Half a megabyte of notes."""
    text = hl7.order() + "NTE|1||" + "note " * 100_000 + "\r"
    with listening(desk.inbox.take) as server:
        (answer,) = converse(server.port, framed(text))
    assert msa(answer)[0] == "AA"
    desk.inbox.read_waiting()
    assert len(desk.orders()) == 1


def test_a_ledger_that_is_away(desk: Desk) -> None:
    """AE: the sender comes again; what could not be kept was not acknowledged."""

    def away(_drafts: object) -> list[str]:
        raise LedgerError("the disk is full")

    desk.ledger.add_messages = away  # type: ignore[method-assign,assignment]
    with listening(desk.inbox.take) as server:
        (answer,) = converse(server.port, framed(hl7.order()))
    assert msa(answer)[:2] == ["AE", "1"]


def test_a_message_for_trials_does_not_count(desk: Desk) -> None:
    """MSH-11 T."""
    with listening(desk.inbox.take) as server:
        converse(server.port, framed(hl7.order().replace("|P|2.5.1", "|T|2.5.1")))
    desk.inbox.read_waiting()
    assert [row["state"] for row in desk.messages()] == ["ignored"]
    assert desk.orders() == []
