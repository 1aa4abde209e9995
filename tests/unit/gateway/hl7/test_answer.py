"""Acknowledgements as their receiver reads them, version by version."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hl7apy.parser import parse_message

from gateway.hl7.answer import ACCEPTED, Decision, Reply, answers
from gateway.hl7.head import read_head
from tests.support.mllp import message

NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)
ERROR = Reply(Decision.ERROR, "not | now\r", "207", "PID^1^3")


def answered(text: str, reply: Reply) -> list[str]:
    return [one.decode() for one in answers(reply, read_head(text.encode()), NOON, "X1")]


@pytest.mark.parametrize("version", ["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.8"])
@pytest.mark.parametrize("reply", [ACCEPTED, ERROR])
def test_hl7apy_reads_it_in_the_version_of_the_message(version: str, reply: Reply) -> None:
    """Sender and receiver change places; MSH-10 comes back in MSA-2."""
    (answer,) = answered(message("C|1".replace("|", "7")).replace("|2.5.1|", f"|{version}|"), reply)
    parsed = parse_message(answer, find_groups=False)
    assert parsed.version == version
    assert (parsed.msa.msa_1.value, parsed.msa.msa_2.value) == (f"A{reply.decision.value}", "C71")
    assert (parsed.msh.msh_5.value, parsed.msh.msh_6.value) == ("ADT", "MAIN")


def test_errors_say_where_and_why() -> None:
    """ERR from version 2.5 on has code, severity and text; before, a place with a code. Nothing leaves its field."""
    (new,) = answered(message(), ERROR)
    assert "\rERR||PID^1^3|207^Application internal error^HL70357|E||||not   now " in new
    (old,) = answered(message().replace("|2.5.1|", "|2.3.1|"), ERROR)
    assert "\rERR|PID^1^3^207&Application internal error&HL70357" in old


def test_unknown_conditions_are_answered() -> None:
    """Silence would make the sender wait; only NE is silence."""
    assert len(answered(message(modes="XX|NE"), ACCEPTED)) == 1
    assert answered(message(modes="NE|NE"), ACCEPTED) == []
