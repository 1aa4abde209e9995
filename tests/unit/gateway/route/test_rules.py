"""Conditions in CEL: what they can say, and what is wrong with them before any study comes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.context import Identifier, Order, Person, Visit
from gateway.domain.errors import ConfigurationError
from gateway.domain.messages import Code
from gateway.domain.study import Series, Study
from gateway.route.rules import _EXAMPLE, compile_expression, context
from tests.support.received import SERIES, STUDY, instance

NUMBER = (Identifier(id="1"),)
ORDER = Order(
    person=Person(name="Doe^Jane"),
    accession_number="A1",
    placer_number=NUMBER,
    filler_number=NUMBER,
    requested_procedure_id="R7",
    procedure=(Code(value="MRHEAD", scheme="L", meaning="MR head"),),
    modality="MR",
    priority="STAT",
    reason="headache",
    allergies=("Iodine, iodinated contrast",),
    visit=Visit(patient_class="I"),
    control="NW",
)


def study(**more: Any) -> tuple[Study, Series]:
    made = Study.of(STUDY, [instance(number, **more) for number in (1, 2)])
    return made, made.series[0]


def holds(text: str, **more: Any) -> bool:
    return compile_expression(text, "rules.0.when").holds(*study(**more))


BRAIN = {"body_part": "BRAIN", "image_type": ("ORIGINAL", "PRIMARY", "M"), "pixel_spacing": (0.5, 0.5), "rows": 256}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ('study.modalities.exists(m, m == "MR") && series.body_part == "BRAIN"', True),
        ('"CT" in study.modalities', False),
        ('series.modality == "MR" && series.instance_count >= 2', True),
        ('series.image_type[2] == "M"', True),
        ('series.image_type[5] == "X"', False),
        ("series.pixel_spacing.all(p, p < 1.0)", True),
        ("series.rows > 128", True),
        ('sender.ae_title == "CT1" && sender.address.startsWith("127.")', True),
        ('series.description.matches("(?i)t1") || series.protocol == ""', True),
        ("study.series_count == 1 && study.instance_count == 2", True),
        ("series.slice_thickness < 3.0", True),
        ('study.date > "2020"', False),
        ('series["body_part"] == "BRAIN"', True),
        ("type(series.rows) == int", True),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    """Study, series and sender can be asked, and an index that is not there is false."""
    assert holds(text, **BRAIN) is expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("series.modality =", "not a CEL expression"),
        ("", "not a CEL expression"),
        ("stduy.date > '2'", "unknown name 'stduy': a condition knows study, series, sender and order"),
        ('series.bodypart == "BRAIN"', r"unknown name 'series.bodypart' \(did you mean 'series.body_part'\?\)"),
        ('series.modality == "CT" && series.bodypart == "X"', "unknown name 'series.bodypart'"),
        ('false && sendr.ae_title == "X"', "unknown name 'sendr'"),
        ("true || series.zzz == 1", "unknown name 'series.zzz': series has uid, modality"),
        ('study.modalities.exists(m, n == "MR")', "unknown name 'n'"),
        ("has(series.patient_name)", "unknown name 'series.patient_name'"),
        ('false && series.description.lower() == "x"', r"unknown name 'lower\(\)': CEL has no such function"),
        ("series.modality", "not a condition: it must be true or false"),
        ("1", "not a condition"),
        ('series.rows == "256"', "kinds that do not go together"),
        ("series.rows > 2.5", "kinds that do not go together"),
        ("series.instance_count / 0 > 1", "cannot be evaluated"),
        ("(" * 400 + "true" + ")" * 400, "too many brackets|cannot be evaluated"),
    ],
)
def test_mistakes_are_found_before_any_study(text: str, part: str) -> None:
    """Each is one sentence that names the place and what is wrong, also behind an && that hides it."""
    with pytest.raises(ConfigurationError, match=part) as raised:
        compile_expression(text, "rules.0.when (rule 'brain')")
    assert raised.value.message.startswith("rules.0.when (rule 'brain'): ")
    assert "\n" not in raised.value.message


def test_a_variable_of_a_macro_is_known() -> None:
    """Inside its macro, and only there, also where it has the name of something else."""
    assert holds('study.modalities.filter(study, study == "MR").size() == 1')
    with pytest.raises(ConfigurationError, match="unknown name 'm'"):
        compile_expression('study.modalities.exists(m, m == "MR") && m == "MR"', "here")


def test_the_example_has_what_a_study_has() -> None:
    """Conditions are tried on an example of exactly the shape that real studies have."""
    real = context(*study(**BRAIN), ORDER)
    assert {key: set(value) for key, value in real.items()} == {key: set(value) for key, value in _EXAMPLE.items()}
    for group, fields in real.items():
        for name, value in fields.items():
            assert isinstance(_EXAMPLE[group][name], type(value) if not isinstance(value, str) else str), (
                f"{group}.{name}"
            )


@pytest.mark.parametrize(
    ("condition", "without", "with_it"),
    [
        ('order.priority == "STAT"', False, True),
        ("has(order.priority)", False, True),
        ("has(order.control)", False, True),
        ("size(order) == 0", True, False),
        ('order.procedure_code in ["MRHEAD"]', False, True),
        ('order.priority == "STAT" || series.modality == "MR"', True, True),
        ('!has(order.priority) || order.priority != "STAT"', True, False),
        ('order.allergies.exists(a, a.contains("odin"))', False, True),
    ],
)
def test_conditions_on_the_order(condition: str, without: bool, with_it: bool) -> None:
    """An order is like any other thing to ask for; where there is none, or it does not say, nothing about it is true."""
    expression = compile_expression(condition, "when")
    assert expression.holds(*study()) is without
    assert expression.holds(*study(), ORDER) is with_it
    assert not compile_expression("has(order.reason)", "when").holds(*study(), Order(priority="STAT"))


def test_no_patient_data_in_conditions() -> None:
    """Rules cannot ask who the patient is."""
    words = str(context(*study(), ORDER))
    assert "Doe" not in words
    assert "P1" not in words


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet="series.tudy mod()[]&|=!<>\"'0123456789+-", max_size=30))
def test_any_text_is_a_condition_or_an_error_of_ours(text: str) -> None:
    """Whatever stands in a rule, nothing but ConfigurationError comes of it, and asking it never raises."""
    try:
        expression = compile_expression(text, "here")
    except ConfigurationError:
        return
    assert expression.holds(*study()) in (True, False)


def test_series_uid_is_known() -> None:
    """A rule for one series can be written."""
    assert holds(f'series.uid == "{SERIES}"')
