"""What the gate says of a spoiled result set."""

from __future__ import annotations

import pytest

from gateway.domain.errors import GateRefused
from tests.support.result_set import ResultSet

ELSEWHERE = "1.2.3.4.5"


def refusal(found: ResultSet) -> str:
    """Code of the refusal; its sentence names no patient, since it will be logged."""
    with pytest.raises(GateRefused) as caught:
        found.verify()
    assert "Wang" not in caught.value.message
    return caught.value.code
