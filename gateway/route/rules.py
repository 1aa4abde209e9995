"""Conditions of rules in CEL (https://cel.dev): what they can talk about."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from gateway.cel.program import Program, Unanswerable, compile_program
from gateway.domain.context import Order
from gateway.domain.errors import ConfigurationError
from gateway.domain.study import Series, Study


@dataclass(frozen=True)
class Expression:
    """A compiled condition over `study`, `series`, `sender` and `order`."""

    text: str
    _program: Program

    def holds(self, study: Study, series: Series, order: Order | None = None) -> bool:
        """Whether the condition is true; a condition that cannot be evaluated (a missing key, say) is not."""
        try:
            return self._evaluate(context(study, series, order))
        except Unanswerable:
            return False

    def _evaluate(self, values: dict[str, Any]) -> bool:
        result = self._program.value(values)
        if not isinstance(result, bool):
            raise Unanswerable("not a condition")
        return result


def compile_expression(text: str, where: str) -> Expression:
    """Compiles a condition and tries it on an example; raises ConfigurationError that says where and what is wrong."""
    expression = Expression(text, compile_program(text, where, _EXAMPLE, _suggestion))
    try:
        expression._evaluate(_EXAMPLE)
    except Unanswerable as error:
        raise ConfigurationError(f"{where}: {_explain(str(error))}") from error
    return expression


def context(study: Study, series: Series, order: Order | None = None) -> dict[str, Any]:
    """What a condition can talk about; documented in docs/configuration.md."""
    first = series.first
    return {
        "study": {
            "uid": study.uid,
            "modalities": list(study.modalities),
            "description": first.study_description,
            "date": first.study_date,
            "institution": first.institution,
            "series_count": len(study.series),
            "instance_count": len(study.instances),
        },
        "series": {
            "uid": series.uid,
            "modality": first.modality,
            "sop_class_uid": first.sop_class_uid,
            "body_part": first.body_part,
            "description": first.series_description,
            "protocol": first.protocol_name,
            "number": first.series_number,
            "manufacturer": first.manufacturer,
            "image_type": list(first.image_type),
            "instance_count": len(series.instances),
            "rows": first.rows,
            "columns": first.columns,
            "slice_thickness": first.slice_thickness or 0.0,
            "pixel_spacing": list(first.pixel_spacing),
            "contrast_agent": first.contrast_agent,
        },
        "sender": {
            "ae_title": series.instances[0].calling_ae,
            "address": series.instances[0].address,
        },
        "order": _order(order) if order else {},
    }


def _order(order: Order) -> dict[str, Any]:
    """Only what the order says: `has(order.reason)` is false for an order without reason, and where there is no order."""
    procedure = order.procedure[0] if order.procedure else None
    values = {
        "accession_number": order.accession_number,
        "placer_number": order.placer_number[0].id if order.placer_number else "",
        "filler_number": order.filler_number[0].id if order.filler_number else "",
        "procedure_code": procedure.value if procedure else "",
        "procedure_scheme": procedure.scheme if procedure else "",
        "procedure": procedure.meaning if procedure else "",
        "requested_procedure_id": order.requested_procedure_id,
        "modality": order.modality,
        "priority": order.priority,
        "reason": order.reason,
        "allergies": list(order.allergies),
        "patient_class": order.visit.patient_class,
        "control": order.control,
    }
    return {name: value for name, value in values.items() if value}


_EXAMPLE: dict[str, Any] = {
    "study": {
        "uid": "1.2",
        "modalities": ["MR"],
        "description": "",
        "date": "20260101",
        "institution": "",
        "series_count": 1,
        "instance_count": 1,
    },
    "series": {
        "uid": "1.2",
        "modality": "MR",
        "sop_class_uid": "1.2",
        "body_part": "",
        "description": "",
        "protocol": "",
        "number": "",
        "manufacturer": "",
        "image_type": ["ORIGINAL", "PRIMARY", *[""] * 14],  # a rule may ask for a value further on
        "instance_count": 1,
        "rows": 1,
        "columns": 1,
        "slice_thickness": 1.0,
        "pixel_spacing": [1.0, 1.0],
        "contrast_agent": "",
    },
    "sender": {"ae_title": "ANY", "address": "127.0.0.1"},
    "order": {
        "accession_number": "1",
        "placer_number": "1",
        "filler_number": "1",
        "procedure_code": "1",
        "procedure_scheme": "L",
        "procedure": "MR",
        "requested_procedure_id": "1",
        "modality": "MR",
        "priority": "STAT",
        "reason": "",
        "allergies": [""],
        "patient_class": "I",
        "control": "NW",
    },
}


def _explain(problem: str) -> str:
    if "overload" in problem:
        return 'values of kinds that do not go together: a text is "3", a whole number 3, a decimal number 3.0'
    if problem.startswith(("not a condition", "neither")):
        return "not a condition: it must be true or false"
    return f"cannot be evaluated: {problem[:120]}"


def _suggestion(name: str) -> str:
    root, _, field = name.partition(".")
    if field:
        close = difflib.get_close_matches(field, _EXAMPLE[root], n=1)
        return f" (did you mean '{root}.{close[0]}'?)" if close else f": {root} has {', '.join(_EXAMPLE[root])}"
    return (
        ": a condition knows study, series, sender and order"
        if not name.endswith("()")
        else ": CEL has no such function"
    )
