"""A model that takes several series: which of a study it is given, and what happens without one."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.bundle.manifest import Manifest
from gateway.domain.ids import Sha256
from gateway.domain.study import Instance
from gateway.route.selection import Decision, Model, decide, make_model, needed, unmet
from tests.support.received import STUDY, instance
from tests.unit.gateway.route.test_selection import Study, key, manifest, model, rule

T1: dict[str, Any] = {"name": "t1", "modality": ["MR"], "select": 'series.description.contains("T1")'}
T2: dict[str, Any] = {"name": "t2", "modality": ["MR"], "select": 'series.description.contains("T2")'}


def both(name: str = "two", **of_t2: Any) -> Model:
    """A model of a T1 and a T2."""
    data = manifest().model_dump(mode="json", exclude={"input", "inputs"})
    made = Manifest.model_validate(data | {"name": name, "inputs": [T1, T2 | of_t2]})
    return make_model(name, made, Sha256("e" * 64), "select")


def series(number: int, description: str, count: int = 3, **more: Any) -> list[Instance]:
    """One series of axial images 1 mm apart."""
    return [
        instance(
            at,
            series=f"{STUDY}.{number}",
            series_description=description,
            series_number=str(number),
            **{
                "position": (0.0, 0.0, float(at)),
                "orientation": (1.0, 0, 0, 0, 1, 0),
                "pixel_spacing": (1.0, 1.0),
                **more,
            },
        )
        for at in range(1, count + 1)
    ]


def run(instances: list[Instance], *models: Model) -> Decision:
    known = {item.name: item for item in models}
    return decide(Study.of(STUDY, instances), [rule(run=(models[0].name,))], known, key)


def picked(decision: Decision) -> dict[str, str]:
    (job,) = decision.jobs
    assert job.series_uid == job.inputs[0].series_uid
    return {item.name: item.series_uid.removeprefix(f"{STUDY}.") for item in job.inputs}


def test_one_job_for_both() -> None:
    """Each input has its series, the first is the one that results lie on, and the job is about both."""
    one = run([*series(1, "T2 tse"), *series(2, "T1 mprage"), *series(3, "localizer")], both())
    assert picked(one) == {"t1": "2", "t2": "1"}
    assert one.reason == "rule 'r': two on series t1 = 2, t2 = 1"
    more = run([*series(1, "T2 tse", 4), *series(2, "T1 mprage"), *series(3, "localizer")], both())
    assert picked(more) == picked(one)
    assert more.jobs[0].id != one.jobs[0].id, "another image of the second series is another input"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"image_type": ("DERIVED", "SECONDARY")}),
        ({}, {"pixel_spacing": (1.0, 3.0)}),
        ({"count": 5}, {"count": 3}),
        ({"frame_of_reference_uid": "1.2.9"}, {"frame_of_reference_uid": "1.2.8", "count": 9}),
        ({}, {}),
    ],
)
def test_the_better_of_two(better: dict[str, Any], worse: dict[str, Any]) -> None:
    """Original, fine, whole, in the reference's frame of reference; of equals the lower number. That there was a choice is said."""
    reference = series(1, "T1", frame_of_reference_uid="1.2.9")
    numbers = (3, 2) if better != worse else (2, 3)
    decision = run([*reference, *series(numbers[0], "T2", **better), *series(numbers[1], "T2", **worse)], both())
    assert picked(decision) == {"t1": "1", "t2": str(numbers[0])}
    assert f"t2: series {numbers[0]}, the best of 2" in decision.reason


def test_no_series_stands_for_two() -> None:
    """What fits both inputs is given to one, so that the other may have what fits it alone."""
    assert picked(run([*series(1, "T1 and T2"), *series(2, "T1")], both())) == {"t1": "2", "t2": "1"}
    decision = run(series(1, "T1 and T2"), both())
    assert (decision.jobs, "fewer series than inputs" in decision.reason) == ((), True)


def test_missing_as_the_manifest_says() -> None:
    """Refused with the reason; run without it and flagged; or another model in its place."""
    alone = series(1, "T1")
    refused = run(alone, both())
    assert refused.jobs == ()
    assert refused.reason == (
        "rule 'r': two is not run: no series for the input t2 (the manifest's series selector says no)"
    )
    (job,) = (without := run(alone, both(missing="zeros"))).jobs
    assert picked(without) == {"t1": "1"}
    assert "no series for the input t2" in job.flags[0]
    instead = run(alone, both(missing={"run": "m"}), model())
    assert [item.model for item in instead.jobs] == ["m"]
    assert "two is not run" in instead.reason and "instead m on 1 of 1 series" in instead.reason
    round_and_round = both(missing={"run": "two"})
    assert run(alone, round_and_round).jobs == ()


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"plane": "axial"}, True),
        ({"plane": "sagittal"}, False),
        ({"contrast": "without"}, True),
        ({"contrast": "with"}, False),
        ({"geometry": {"spacing": {"min": 2.0, "max": 5.0}}}, False),
    ],
)
def test_selectors(limits: dict[str, Any], fits: bool) -> None:
    """Plane, contrast agent and spacing, as far as headers tell them."""
    assert bool(run([*series(1, "T1"), *series(2, "T2")], both(**limits)).jobs) is fits


def test_a_study_waits_for_what_cannot_be_missing() -> None:
    """A rule may have its study held until each input that a model needs has a series."""
    asked = rule(run=("two",))
    models = {item.name: item for item in (both(), both("three", missing="zeros"))}
    study = Study.of(STUDY, series(1, "T1"))
    assert (unmet(study, asked, models), needed(asked, models)) == ((), [])
    waits = type(asked)(**{**vars(asked), "require_inputs": True, "run": ("two", "three")})
    assert len(needed(waits, models)) == 3
    assert unmet(study, waits, models) == ("the input t2 of two",)
    assert unmet(Study.of(STUDY, [*series(1, "T1"), *series(2, "T2")]), waits, models) == ()
