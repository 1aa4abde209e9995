"""Coded concepts that results say in the same way to archive and EHR (PS3.16 annex D, SNOMED CT)."""

from __future__ import annotations

from gateway.domain.messages import Code

PRESENT = Code(value="52101004", scheme="SCT", meaning="Present")
ABSENT = Code(value="2667000", scheme="SCT", meaning="Absent")
CERTAINTY = Code(value="111012", scheme="DCM", meaning="Certainty of Finding")
