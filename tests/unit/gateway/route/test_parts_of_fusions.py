"""Which series each part of a fusion is given, and what happens without one."""

from __future__ import annotations

from typing import Any

from gateway.bundle.manifest import Manifest
from gateway.domain.ids import Sha256
from gateway.route.selection import Decision, Model, make_model, needed, with_parts
from tests.unit.gateway.route.test_inputs import both, picked, run, series
from tests.unit.gateway.route.test_selection import manifest, model, rule


def fusion(missing: str = "refuse", **of_input: Any) -> Model:
    """Of a model of any MR, and of one of a T1 and a T2; results lie on what ``of_input`` takes."""
    parts = {"plain": model("plain"), "two": both()}
    data = manifest(**of_input).model_dump(mode="json", exclude={"weights", "inputs", "input"})
    pinned = [{"name": name, "run": one.manifest.name, "digest": one.digest} for name, one in parts.items()]
    pinned[1]["missing"] = missing
    given = {"modality": ["MR"], "select": 'series.description.contains("T1")', **of_input}
    made = Manifest.model_validate(data | {"name": "fused", "input": given, "fusion": {"parts": pinned}})
    return with_parts(make_model("fused", made, Sha256("d" * 64), "select"), parts)


def reason(decision: Decision) -> str:
    return decision.reason


def test_one_job_for_all_parts() -> None:
    """Parts may share a series; the reference goes before finer ones; the story names each part's."""
    found = run([*series(1, "T2 tse"), *series(2, "T1 mprage"), *series(3, "T1 fine", count=9)], fusion())
    assert picked(found) == {"image": "3", "plain/image": "3", "two/t1": "3", "two/t2": "1"}
    assert "fused on series image = 3, plain/image = 3, two/t1 = 3, two/t2 = 1" in reason(found)


def test_the_reference_itself_goes_first() -> None:
    """Though another series fits a part better."""
    select = 'series.description == "T1 mprage"'
    found = run([*series(1, "T2 tse"), *series(2, "T1 mprage"), *series(3, "T1 fine", count=9)], fusion(select=select))
    assert picked(found) == {"image": "2", "plain/image": "2", "two/t1": "2", "two/t2": "1"}


def test_a_part_without_a_series() -> None:
    """Refuses, or is left out and told."""
    alone = series(2, "T1 mprage")
    refused = run(alone, fusion())
    assert not refused.jobs
    assert "its part two (two) cannot be run: no series for the input t2" in reason(refused)
    left = run(alone, fusion("leave_out"))
    assert picked(left) == {"image": "2", "plain/image": "2"}
    (job,) = left.jobs
    assert job.flags[0].startswith("Without the part two (two): no series for the input t2")
    assert "without the part two (two): no series for the input t2" in reason(left)


def test_what_a_study_is_held_for() -> None:
    """The series of the result and of each part that may not be missing."""
    one = fusion("leave_out")
    asked = rule(run=("fused",))
    object.__setattr__(asked, "require_inputs", True)
    assert [each.input.name for _, each in needed(asked, {one.name: one})] == ["image", "image"]
    one = fusion()
    assert [each.input.name for _, each in needed(asked, {one.name: one})] == ["image", "image", "t1", "t2"]
