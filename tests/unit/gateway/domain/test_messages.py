"""Orders and outcomes survive JSON, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.messages import (
    Code,
    InputFile,
    JobOrder,
    MeasurementResult,
    ModelIdentity,
    Outcome,
    ResultObject,
    SegmentResult,
    from_json,
    revive,
    to_json,
)
from gateway.domain.study import Header
from tests.support.received import header

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=20)
CODES = st.builds(Code, value=TEXT, scheme=TEXT, meaning=TEXT)
OUTCOMES = st.builds(
    Outcome,
    job_id=TEXT,
    status=st.sampled_from(["complete", "refused"]),
    model=st.builds(ModelIdentity, name=TEXT, version=TEXT, digest=TEXT, device_uid=TEXT, manufacturer=TEXT),
    reason=TEXT,
    segments=st.lists(
        st.builds(SegmentResult, number=st.integers(), label=TEXT, category=CODES, type=CODES, voxels=st.integers()),
        max_size=2,
    ).map(tuple),
    measurements=st.lists(
        st.builds(MeasurementResult, name=CODES, value=FINITE, unit=CODES, segment=st.none() | st.integers()),
        max_size=2,
    ).map(tuple),
    objects=st.lists(st.builds(ResultObject), max_size=2).map(tuple),
    flags=st.lists(TEXT, max_size=2).map(tuple),
    timings=st.dictionaries(TEXT, FINITE, max_size=2),
)
ORDERS = st.builds(
    JobOrder,
    job_id=TEXT,
    bundle=TEXT,
    inputs=st.lists(st.builds(InputFile), max_size=2).map(tuple),
    output_dir=TEXT,
    content_time=FINITE,
)


@settings(max_examples=50)
@given(OUTCOMES)
def test_outcome_round_trip(outcome: Outcome) -> None:
    """What was written is what is read, in every script and with every number."""
    assert from_json(Outcome, to_json(outcome)) == outcome
    assert "\n" not in to_json(outcome)


@settings(max_examples=50)
@given(ORDERS)
def test_order_round_trip(order: JobOrder) -> None:
    """What was written is what is read."""
    assert from_json(JobOrder, to_json(order)) == order


def test_header_round_trip_keeps_types() -> None:
    """A header that comes back from the ledger has checked identifiers again."""
    made = header(orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), image_type=("A", "B"))
    back = revive(Header, json.loads(json.dumps(dataclasses.asdict(made))))
    assert back == made
    assert {name: type(value) for name, value in vars(back).items()} == {
        name: type(value) for name, value in vars(made).items()
    }


GOOD: dict[str, Any] = {
    "job_id": "j",
    "bundle": "/b",
    "inputs": [],
    "output_dir": "/o",
    "content_time": 1.0,
    "version": 1,
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"version": None}, {"version": "1"}, {"job_id": 5}, {"inputs": "abc"}, {"inputs": [5]}, {"inputs": {}},
        {"content_time": "now"}, {"content_time": True}, {"flags": "x"}, {"more": 1}, {"inputs": [{"path": "/x"}]},
    ],
)  # fmt: skip
def test_another_shape_is_refused(change: dict[str, Any]) -> None:
    """A message of another version, with another key or another type, raises ValueError."""
    assert from_json(JobOrder, json.dumps(GOOD)).job_id == "j"
    with pytest.raises(ValueError, match="JobOrder"):
        from_json(JobOrder, json.dumps(GOOD | change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "5", '{"version": 1}'])
def test_what_is_no_message(text: str) -> None:
    """Text that is no JSON object, or half of one, raises ValueError."""
    with pytest.raises(ValueError):
        from_json(JobOrder, text)


@given(
    st.recursive(
        st.none() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8
    )
)
def test_no_json_breaks_the_reader(value: Any) -> None:
    """Any JSON in the place of any field is a message or a ValueError."""
    for name in GOOD:
        try:
            from_json(JobOrder, json.dumps(GOOD | {name: value}))
        except ValueError:
            continue
