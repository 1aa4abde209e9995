"""Which jobs a study gives, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.bundle.manifest import Manifest
from gateway.domain.context import Order
from gateway.domain.ids import DestinationName, InputSetId, JobId, ModelName, Sha256, StudyUID
from gateway.domain.job import Priority
from gateway.domain.study import Instance, Patient, Series, Study
from gateway.route.rules import compile_expression
from gateway.route.selection import Decision, Model, RoutingRule, decide, matching, mixed_patients, unfit
from gateway.submit.jobkey import job_key
from tests.support.manifests import plain_manifest
from tests.support.received import STUDY, instance


def manifest(**of_input: Any) -> Manifest:
    return plain_manifest(input={"modality": ["MR"], "geometry": {"slices": {"min": 2, "max": 10}}, **of_input})


def model(name: str = "m", **of_input: Any) -> Model:
    made = manifest(**of_input)
    select = compile_expression(made.input.select, "select")
    return Model(name=ModelName(name), manifest=made, digest=Sha256("f" * 64), select=select)


def rule(
    name: str = "r",
    when: str = "true",
    run: Sequence[str] = ("m",),
    deliver: Sequence[str] = ("pacs",),
    priority: Priority | None = Priority.ROUTINE,
) -> RoutingRule:
    return RoutingRule(
        name=name,
        when=compile_expression(when, name),
        run=tuple(ModelName(item) for item in run),
        deliver=tuple(DestinationName(item) for item in deliver),
        priority=priority,
    )


def images(count: int = 3, series: int = 1, **more: Any) -> list[Instance]:
    return [instance(number, series=f"{STUDY}.{series}", **more) for number in range(1, count + 1)]


def run(instances: list[Instance], *rules: RoutingRule, models: Sequence[Model] = ()) -> Decision:
    known = {item.name: item for item in (models or (model(),))}
    return decide(Study.of(STUDY, instances), rules, known, key)


def key(series: Series, inputs: InputSetId, item: Model) -> JobId:
    return job_key(series.first.study_uid, series.uid, inputs, item.digest + item.name)


def test_a_fitting_series_is_a_job() -> None:
    """Rule, series, input set, model and destinations are in the draft, and the reason says what was chosen."""
    decision = run([*images(), *images(series=2, modality="CT")], rule(priority=Priority.STAT))
    [job] = decision.jobs
    assert (job.series_uid, job.model, job.rule, job.deliver, job.priority) == (
        f"{STUDY}.1",
        "m",
        "r",
        ("pacs",),
        Priority.STAT,
    )
    assert job.input_set == Study.of(STUDY, images()).series[0].input_set()
    assert decision.reason == "rule 'r': m on 1 of 2 series"
    assert not decision.quarantine


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        (images(modality="CT"), "modality CT is not MR"),
        (images(modality=""), "modality unknown is not MR"),
        (images(1), "1 slices, at least 2 needed"),
        (images(11), "11 slices, at most 10 taken"),
        (images(1, frames=11), "11 slices, at most 10 taken"),
        (images(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), "its images are localizers by their Image Type"),
    ],
)
def test_why_nothing_fits(instances: list[Instance], reason: str) -> None:
    """The reason says what about the series the model does not take."""
    decision = run(instances, rule())
    assert decision.jobs == ()
    assert decision.reason == f"rule 'r': no series fits m ({reason})"


def test_frames_count_as_slices() -> None:
    """A multi-frame image has as many slices as frames."""
    assert len(run(images(1, frames=3), rule()).jobs) == 1


def test_the_models_own_selector() -> None:
    """What the manifest excludes is not run, whatever the rule says."""
    picky = model(select='series.description.contains("T1")')
    assert unfit(picky, *pair(images(series_description="T2"))) == "the manifest's series selector says no"
    assert unfit(picky, *pair(images(series_description="T1 mprage"))) is None


def pair(instances: list[Instance]) -> tuple[Study, Series]:
    made = Study.of(STUDY, instances)
    return made, made.series[0]


def test_no_rule_and_no_match() -> None:
    """Without rules and without a match there is a sentence each."""
    assert run(images()).reason == "no rules are configured"
    decision = run(images(), rule(when='series.modality == "CT"'))
    assert (decision.jobs, decision.reason) == ((), "rule 'r': condition false for every series")


def test_results_of_our_own() -> None:
    """A study without any other instance gives nothing, and says so."""
    decision = run([], rule())
    assert (decision.jobs, decision.reason) == ((), "the study holds only results of our own")


def test_two_rules_one_job() -> None:
    """The same model on the same input is one job for both: all destinations, the sooner priority."""
    decision = run(
        images(),
        rule("a", deliver=("pacs", "ehr")),
        rule("b", deliver=("archive", "pacs"), priority=Priority.STAT),
        rule("c", run=("m", "n"), deliver=()),
        models=(model(), model("n")),
    )
    first, second = decision.jobs
    assert (first.rule, first.deliver, first.priority) == ("a", ("pacs", "ehr", "archive"), Priority.STAT)
    assert (second.model, second.deliver, second.priority) == ("n", (), Priority.ROUTINE)
    assert decision.reason.count("m on 1 of 1 series") == 3


@pytest.mark.parametrize(
    ("one", "other", "mixed"),
    [
        (Patient(patient_id="1", name="Doe^Jane"), Patient(patient_id="1", name="DOE^JANE^^^ "), False),
        (Patient(patient_id="1 ", name="Doe^Jane"), Patient(patient_id="1", name="Doe^Jane"), False),
        (Patient(patient_id="1", name="Doe^Jane"), Patient(patient_id="2", name="Doe^Jane"), True),
        (Patient(patient_id="1", name="Doe^Jane"), Patient(patient_id="1", name="Roe^Richard"), True),
        (Patient(patient_id="1", issuer="A"), Patient(patient_id="1", issuer="B"), True),
        (Patient(), Patient(), False),
    ],
)
def test_mixed_patients(one: Patient, other: Patient, mixed: bool) -> None:
    """Two patients under one study are quarantined before any rule is asked, and the reason names nobody."""
    decision = run([*images(patient=one), *images(series=2, patient=other)], rule())
    assert decision.quarantine is mixed
    if mixed:
        assert decision.jobs == ()
        assert "2 different patients" in decision.reason
        assert not [
            word
            for word in ("Doe", "Roe", "1", "A")
            if word in decision.reason.replace("Study Instance UID", "").split()
        ]
    assert (mixed_patients(Study.of(STUDY, images(patient=one))) is None) is True


def test_matching_rules() -> None:
    """A rule matters to a study if one of its series meets it."""
    rules = [
        rule("mr", 'series.modality == "MR"'),
        rule("ct", 'series.modality == "CT"'),
        rule("us", 'series.modality == "US"'),
    ]
    study = Study.of(STUDY, [*images(), *images(series=2, modality="CT")])
    assert [item.name for item in matching(study, rules)] == ["mr", "ct"]


def test_order_of_arrival_does_not_matter() -> None:
    """The same instances in another order, or sent by another, are the same job."""
    forwards, backwards = images(5), images(5, at=5.0, association="other")[::-1]
    assert run(forwards, rule()).jobs[0].id == run(backwards, rule()).jobs[0].id
    assert run(images(4), rule()).jobs[0].id != run(forwards, rule()).jobs[0].id
    changed = [*images(4), instance(5, series=f"{STUDY}.1", content="other pixels")]
    assert run(changed, rule()).jobs[0].id != run(forwards, rule()).jobs[0].id
    assert StudyUID(STUDY) == forwards[0].header.study_uid


@pytest.mark.parametrize(
    ("said", "priority"),
    [("STAT", Priority.STAT), ("ASAP", Priority.URGENT), ("ROUTINE", Priority.ROUTINE), ("", Priority.ROUTINE)],
)
def test_priority_from_the_order(said: str, priority: Priority) -> None:
    """Where the rule leaves it to the order."""
    (job,) = decide(
        Study.of(STUDY, images()), [rule(priority=None)], {ModelName("m"): model()}, key, Order(priority=said)
    ).jobs
    assert job.priority is priority
    (job,) = decide(Study.of(STUDY, images()), [rule(priority=None)], {ModelName("m"): model()}, key).jobs
    assert job.priority is Priority.ROUTINE
