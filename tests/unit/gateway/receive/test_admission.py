"""Who may send: calling AE title, called AE title and address, judged together."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.receive.admission import (
    APPLICATION_CONTEXT,
    CALLED_NOT_RECOGNIZED,
    CALLING_NOT_RECOGNIZED,
    Rejection,
    admit,
)
from gateway.receive.settings import DicomSettings

OPEN = DicomSettings()
LISTED = DicomSettings.model_validate(
    {
        "peers": [
            {"ae_title": "CT1", "host": "192.0.2.7"},
            {"ae_title": "PACS", "host": "10.0.0.0/8"},
            {"ae_title": "PACS", "host": "2001:db8::/32"},
            {"ae_title": "MR 1", "host": "0.0.0.0/0"},
        ]
    }
)


@dataclass(frozen=True)
class Asked:
    """A request for an association."""

    calling: str = "CT1"
    called: str = "HILUM"
    protocol_version: int = 1
    application_context: str = APPLICATION_CONTEXT


def judge(calling: str, called: str, address: str, settings: DicomSettings) -> Rejection | None:
    """Of a request that is in order otherwise."""
    return admit(Asked(calling, called), address, None, settings)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_without_peers_this_machine_may_send(address: str) -> None:
    """Any AE title, from loopback only."""
    assert judge("ANY", "HILUM", address, OPEN) is None


@pytest.mark.parametrize(
    "address",
    ["192.0.2.7", "0.0.0.0", "::", "::ffff:192.0.2.7", "fe80::1%eth0", "", "localhost", "127.0.0.1:4"],  # noqa: S104
)
def test_without_peers_nobody_else_may(address: str) -> None:
    """No other address, and nothing that is no address."""
    assert judge("ANY", "HILUM", address, OPEN) is CALLING_NOT_RECOGNIZED


@pytest.mark.parametrize(
    ("calling", "address", "admitted"),
    [
        ("CT1", "192.0.2.7", True),
        (" CT1 ", "192.0.2.7", True),
        ("CT1", "::ffff:192.0.2.7", True),
        ("CT1", "192.0.2.8", False),
        ("CT1", "127.0.0.1", False),
        ("ct1", "192.0.2.7", False),
        ("CT2", "192.0.2.7", False),
        ("PACS", "10.255.0.1", True),
        ("PACS", "2001:db8:1::5", True),
        ("PACS", "::ffff:10.0.0.1", True),
        ("PACS", "11.0.0.1", False),
        ("PACS", "2001:db9::1", False),
        ("MR 1", "8.8.8.8", True),
        ("MR  1", "8.8.8.8", False),
        ("MR 1", "2001:db8::1", False),
        ("", "192.0.2.7", False),
        ("A" * 17, "192.0.2.7", False),
        ("CT1\\X", "192.0.2.7", False),
    ],
)
def test_peers(calling: str, address: str, admitted: bool) -> None:
    """Title and address must be of the same peer; any other pair gets one and the same answer."""
    assert judge(calling, "HILUM", address, LISTED) is (None if admitted else CALLING_NOT_RECOGNIZED)


@pytest.mark.parametrize("called", ["HILUMX", "hilum", "ANY-SCP", "HIL UM"])
def test_called_title(called: str) -> None:
    """Who may send but calls somebody else is told so; a stranger is not."""
    assert judge("CT1", called, "192.0.2.7", LISTED) is CALLED_NOT_RECOGNIZED
    assert judge("CT1", called, "192.0.2.8", LISTED) is CALLING_NOT_RECOGNIZED
    assert judge("CT1", " HILUM  ", "192.0.2.7", LISTED) is None


def test_the_answers_of_the_standard() -> None:
    """Result, source and diagnostic are those of PS3.8 table 9-21."""
    fields = [(item.result, item.source, item.diagnostic) for item in (CALLING_NOT_RECOGNIZED, CALLED_NOT_RECOGNIZED)]
    assert fields == [(1, 1, 3), (1, 1, 7)]


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20) | st.ip_addresses().map(str))
def test_nothing_raises(calling: str, called: str, address: str) -> None:
    """Whatever a peer says it is, there is an answer; a stranger is let in never."""
    answer = judge(calling, called, address, LISTED)
    if calling.strip(" \0") not in ("CT1", "PACS", "MR 1"):
        assert answer is CALLING_NOT_RECOGNIZED
