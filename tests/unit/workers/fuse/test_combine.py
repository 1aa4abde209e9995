"""Several answers into one: numbers made by hand, each way to combine them, and what cannot be combined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gateway.bundle.manifest import Manifest
from gateway.cel.program import compile_program
from gateway.domain.errors import ModelOutputInvalid
from tests.support.fusions import BRAIN
from tests.support.manifests import plain_manifest
from workers.fuse.combine import by_rules, dice_with, labels_by_vote, least_agreement, mean_numbers, most_likely
from workers.infer.vote import RunningMean

CODE = {"value": "x", "scheme": "99TEST", "meaning": "X"}
CLASSIFICATION: dict[str, Any] = {"kind": "classification", "findings": [{"name": CODE}]}
REGRESSION: dict[str, Any] = {
    "kind": "regression",
    "values": [{"name": CODE, "unit": {"value": "a", "scheme": "UCUM", "meaning": "year"}}],
}
SEGMENTATION: dict[str, Any] = {"kind": "segmentation", "segments": [BRAIN]}
SAID = {
    "a": {"findings": {"x": 0.7}, "values": {}},
    "b": {"findings": {}, "values": {"vol": 12.0}},
}


def manifest(output: dict[str, Any], rule: str) -> Manifest:
    parts = [{"name": name, "run": name, "digest": "0" * 64} for name in ("a", "b")]
    fusion = {"combine": "rules", "parts": parts, "rules": [rule]}
    return plain_manifest(fusion=fusion, output=output, weights=None)


def ruled(output: dict[str, Any], rule: str, said: dict[str, Any] = SAID) -> tuple[bool | float | str, ...]:
    program = compile_program(rule, "rule", {"parts": ["a", "b"]})
    return by_rules([program], said, manifest(output, rule))


def chances(*rows: list[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A segment in each row, a voxel in each column."""
    return np.array(rows, np.float32).reshape(len(rows), 1, 1, -1)


def test_the_likeliest_of_background_and_segments() -> None:
    """Background has what is left; of equals the lower number stands."""
    found = most_likely(chances([0.6, 0.3, 0.5, 0.4, 0.2], [0.1, 0.3, 0.0, 0.4, 0.7]))
    assert found.reshape(-1).tolist() == [1, 0, 0, 1, 2]


def test_a_weighted_mean_of_probabilities() -> None:
    """0.75 and 0.25 times what two models say, whatever the order."""
    mean: RunningMean[Any] = RunningMean()
    mean.add(chances([0.8, 0.4, 0.0]), 0.75)
    mean.add(chances([0.0, 0.9, 1.0]), 0.25)
    assert mean.value.reshape(-1).tolist() == pytest.approx([0.6, 0.525, 0.25])
    assert most_likely(mean.value).reshape(-1).tolist() == [1, 1, 0]
    with pytest.raises(ValueError, match="mean of nothing"):
        _ = RunningMean[Any]().value


def test_votes() -> None:
    """A weight above one half decides alone; STAPLE follows the two that agree."""
    one, other = np.array([[[1, 0, 2, 2]]], np.uint8), np.array([[[0, 0, 2, 1]]], np.uint8)
    assert labels_by_vote([one, other], [0.6, 0.4], "vote").tolist() == one.tolist()
    assert labels_by_vote([one, other], [0.4, 0.6], "vote").tolist() == other.tolist()
    assert labels_by_vote([one, other, other], [1, 1, 1], "staple").tolist() == other.tolist()


def test_means_of_numbers() -> None:
    """Weights count as a part of their sum: without a part the others still make one."""
    assert mean_numbers([(0.9, 0.1), (0.5, 0.5)], [0.75, 0.25]) == pytest.approx((0.8, 0.2))
    assert mean_numbers([(0.9,), (0.5,)], [0.3, 0.3]) == pytest.approx((0.7,))
    for wrong in (math.nan, math.inf):
        with pytest.raises(ModelOutputInvalid, match="not finite"):
            mean_numbers([(wrong,), (0.5,)], [0.5, 0.5])


@pytest.mark.parametrize(
    ("output", "rule", "value"),
    [
        (CLASSIFICATION, 'parts.a.findings["x"] > 0.5 && parts.b.values["vol"] > 10.0', True),
        (CLASSIFICATION, 'parts.a.findings["x"] > 0.5 && parts.b.values["vol"] > 20.0', False),
        (CLASSIFICATION, 'parts.b.values["vol"] > 10.0 ? parts.a.findings["x"] : 0.0', 0.7),
        (REGRESSION, '2.0 * parts.b.values["vol"] - 1.0', 23.0),
        (SEGMENTATION, 'parts.b.values["vol"] > 10.0 ? "b" : "a"', "b"),
    ],
)
def test_rules(output: dict[str, Any], rule: str, value: object) -> None:
    """A condition is a finding that holds or not, a number a probability or a value, a text the part whose labels stand."""
    assert ruled(output, rule) == (value,)


@pytest.mark.parametrize(
    ("output", "rule", "problem"),
    [
        (CLASSIFICATION, 'parts.a.findings["x"] * 2.0', "no probability from 0 to 1"),
        (CLASSIFICATION, '"yes"', "no number"),
        (REGRESSION, "true", "no number"),
        (REGRESSION, "1.0 / 0.0", "not finite"),
        (REGRESSION, 'parts.a.values["vol"]', "no such key"),
        (SEGMENTATION, '"c"', "name of a part"),
        (SEGMENTATION, "1.0", "name of a part"),
    ],
)
def test_rules_without_an_answer(output: dict[str, Any], rule: str, problem: str) -> None:
    """They refuse the result."""
    with pytest.raises(ModelOutputInvalid, match=problem) as caught:
        ruled(output, rule)
    assert caught.value.code == "rule"


def test_a_part_that_says_nan() -> None:
    """Whatever a rule makes of it is no answer."""
    said = {"a": {"findings": {"x": math.nan}, "values": {}}}
    with pytest.raises(ModelOutputInvalid, match="not finite"):
        ruled(CLASSIFICATION, 'parts.a.findings["x"]', said)


def test_how_far_parts_lie_apart() -> None:
    """Dice with the result by label, the least between any two, and differences of probabilities."""
    one, other = np.array([[[1, 1, 0, 2]]], np.uint8), np.array([[[1, 0, 0, 0]]], np.uint8)
    assert dice_with(one, other, ["first", "second"]) == {"first": pytest.approx(2 / 3, abs=1e-6), "second": 0.0}
    assert least_agreement([one, one, other], [], 1) == pytest.approx(2 / 3)
    assert least_agreement([], [(0.9, 0.2), (0.8, 0.2), (0.5, 0.1)], 0) == pytest.approx(0.6)
    assert least_agreement([one], [], 1) is None
    assert least_agreement([], [(0.9,)], 0) is None
    nothing = np.zeros((1, 1, 4), np.uint8)
    assert least_agreement([nothing, nothing], [], 2) == 1.0, "both found nothing"
