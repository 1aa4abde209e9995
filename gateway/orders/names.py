"""Names of persons: HL7's to DICOM's. Pure.

HL7 has one repetition for each writing (XPN-8 `A`, `I`, `P`), DICOM one group (PS3.5 6.2.1).
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.domain.names import writing_of
from gateway.hl7.segments import Components

_GROUPS = "AIP"
_DELIMITERS = str.maketrans("^=\\", "   ")  # DICOM's own, which no component may hold


def person_name(repetitions: Iterable[Components]) -> str:
    """PID-5 (XPN, 2.A.88) as a DICOM person name: at most one name for each of the three writings, the first of each."""
    groups: dict[str, str] = {}
    for item in repetitions:
        family, given, middle, suffix, prefix = (item.get(number).translate(_DELIMITERS) for number in range(1, 6))
        group = "^".join((family, given, middle, prefix, suffix)).rstrip("^")
        if group:
            groups.setdefault(writing_of(item.get(8), group), group)
    return "=".join(groups.get(writing, "") for writing in _GROUPS).rstrip("=")
