"""What one thing is called in several code systems, and what a probability is called. Pure."""

from __future__ import annotations

from typing import Literal

from gateway.domain.codes import CERTAINTY
from gateway.domain.messages import Code, MeasurementResult

CodeSystem = Literal["SCT", "RADLEX"]
"""Which code goes first where a concept has several; the other is the alternate."""


_QUANTITY = Code(value="246205007", scheme="SCT", meaning="Quantity")

_RADLEX = {
    "52101004": ("RID28472", "present"),
    "2667000": ("RID28473", "absent"),
    "118565006": ("RID28668", "volume"),
    "12738006": ("RID6434", "brain"),
    "39607008": ("RID1301", "lung"),
    "3341006": ("RID1302", "right lung"),
    "44029006": ("RID1326", "left lung"),
    "44567001": ("RID1247", "trachea"),
    "80891009": ("RID1385", "heart"),
    "15825003": ("RID480", "aorta"),
    "10200004": ("RID58", "liver"),
    "28273000": ("RID187", "gallbladder"),
    "78961009": ("RID86", "spleen"),
    "15776009": ("RID170", "pancreas"),
    "64033007": ("RID205", "kidney"),
    "9846003": ("RID29662", "right kidney"),
    "18639004": ("RID29663", "left kidney"),
    "29392005": ("RID30324", "right adrenal gland"),
    "38451003": ("RID30325", "left adrenal gland"),
    "89837001": ("RID237", "urinary bladder"),
    "69748006": ("RID7578", "thyroid gland"),
    "56873002": ("RID2473", "sternum"),
    "36118008": ("RID5352", "pneumothorax"),
}
"""SNOMED CT -> RadLex (RSNA), of what the shipped model says and of common organs; more by the site's own `codes`."""


def in_radlex(code: Code) -> Code | None:
    """The RadLex term of a SNOMED CT concept, where it is known."""
    found = _RADLEX.get(code.value) if code.scheme == "SCT" else None
    return Code(value=found[0], scheme="RADLEX", meaning=found[1]) if found else None


def codings(code: Code, first: CodeSystem) -> tuple[Code, ...]:
    """A concept in the wanted system, then as it was; alone where that system does not know it."""
    other = in_radlex(code) if first == "RADLEX" else None
    return (code,) if other is None else (other, code)


def quantity(item: MeasurementResult, first: CodeSystem) -> tuple[Code, ...]:
    """What a number is. A probability, and how often a thing was found, have codes of their own: under that of the finding they
    would say that it is there."""
    if item.probability:
        return _own("PROB", item), CERTAINTY
    return (_own("COUNT", item), _QUANTITY) if _is_count(item) else codings(item.name, first)


def quantity_name(item: MeasurementResult) -> str:
    """The same in words."""
    if item.probability:
        return f"Probability of {item.name.meaning}"
    return f"{item.name.meaning}, how many" if _is_count(item) else item.name.meaning


def _own(kind: str, item: MeasurementResult) -> Code:
    return Code(value=f"{kind}-{item.name.scheme}-{item.name.value}", scheme="99HILUM", meaning=quantity_name(item))


def _is_count(item: MeasurementResult) -> bool:
    """Of a detection's boxes of one class."""
    return item.unit.value == "{findings}"
