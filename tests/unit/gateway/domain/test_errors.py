"""The tree of errors: each says whose fault it is, what a peer is answered and how a command ends."""

from __future__ import annotations

import inspect

import pytest

from gateway.domain import errors
from gateway.domain.errors import Fault, HilumError

ALL = [item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, HilumError)]


@pytest.mark.parametrize("kind", ALL)
def test_each_error_is_complete(kind: type[HilumError]) -> None:
    """Without a message the class's own sentence is said; status and fault are of the kinds that callers know."""
    error = kind()
    assert error.message
    assert str(error) == error.message
    assert error.code == kind.__name__
    assert kind("said").message == "said"
    assert kind("said", code="c").code == "c"
    assert isinstance(kind.fault, Fault)
    assert kind.exit_status in (1, 2)
    # PS3.4 table GG.4-1 and PS3.7 annex C: failures only, never a status that means stored.
    assert kind.dimse_status in (0x0110, 0xA700, 0xA900, 0xC000)


@pytest.mark.parametrize("kind", ALL)
def test_the_tree_in_the_documentation_is_the_tree(kind: type[HilumError]) -> None:
    """Every class stands in the module's own drawing."""
    assert kind.__name__ in (errors.__doc__ or "")


def test_what_a_peer_may_try_again() -> None:
    """Only what passes by itself is called retryable."""
    again = {kind.__name__ for kind in ALL if kind.retryable}
    assert again == {
        "DestinationUnreachable",
        "NoAnswer",
        "StorageFull",
        "LedgerError",
        "LedgerUnavailable",
        "LeaseLost",
    }
