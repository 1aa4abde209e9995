"""Each destination's profile: what a message looks like to the byte, and what a profile may not do.

The messages of `tests/golden/hl7` are to be read by people: one segment a line. `python -m tests.unit.gateway.report.test_profiles`
writes them anew; look at the difference before keeping it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hl7
import pytest
from hl7apy.parser import parse_message
from pydantic import ValidationError

from gateway.domain.context import Identifier, Order, StudyContext, Visit
from gateway.domain.errors import MessageInvalid
from gateway.domain.job import ReportKind
from gateway.domain.messages import Code
from gateway.report import mdm, oru
from gateway.report.content import ReportContent
from gateway.report.settings import CHARSETS, Hl7Destination
from tests.support.outcomes import PATIENT, RESULTS, outcome, report, result_object, source

GOLDEN = Path(__file__).parents[3] / "golden" / "hl7"
PDF = b"%PDF-1.4 a small one"
LEAF = replace(
    PATIENT, name="Ye^Daxiong=葉^大雄"
)  # 葉 is C8 7E in GB 18030: its second byte is the repetition separator
ORDER = Order(
    accession_number="ACC1",
    placer_number=(Identifier(id="PL|1", authority="RIS"),),
    procedure=(
        Code(value="MRH", scheme="99RIS", meaning="MR head"),
        Code(value="24590-2", scheme="LN", meaning="MR Brain"),
    ),
    reason="Headache & nausea",
    provider=("12", "House", "Gregory"),
    visit=Visit(patient_class="I", location=("W1", "R2"), number=(Identifier(id="V1", type_code="VN"),)),
)


def profile(**more: object) -> Hl7Destination:
    common = {
        "kind": "hl7",
        "host": "127.0.0.1",
        "port": 2575,
        "time_zone": "Europe/Berlin",
        "receiving_application": "EHR",
    }
    return Hl7Destination.model_validate(common | more)


def ordered(content: ReportContent) -> ReportContent:
    identifiers = (Identifier(id="P1", authority="HOSPITAL", type_code="MR"), Identifier(id="N9", authority="NATION"))
    context = StudyContext(patient=content.source.patient, identifiers=identifiers, order=(ORDER,))
    return replace(content, subject=context.subject(""))


def filled(content: ReportContent) -> ReportContent:
    """With an order that has a filler number of the RIS."""
    order = replace(ORDER, filler_number=(Identifier(id="F7", authority="RIS"),))
    return replace(content, subject=StudyContext(patient=content.source.patient, order=(order,)).subject(""))


def with_pdf(content: ReportContent) -> ReportContent:
    objects = (*content.outcome.objects, result_object("pdf", "2.25.3"))
    return replace(content, outcome=replace(content.outcome, objects=objects), pdf=PDF)


FLAGGED = outcome(flags=("Two slices are missing.",))
EMPTY = outcome(segments=(*outcome().segments, replace(outcome().segments[0], number=2, label="Lesion", voxels=0)))

CASES: dict[str, Callable[[], bytes]] = {
    "oru-2.5.1": lambda: oru.build(report(EMPTY), profile()),
    "oru-2.3.1-gb18030": lambda: oru.build(
        report(FLAGGED, source(LEAF)), profile(version="2.3.1", charset="GB 18030-2000", references=False)
    ),
    "oru-2.8-cwe-pdf": lambda: oru.build(
        with_pdf(report()), profile(version="2.8", document="ED", acknowledgement="accept")
    ),
    "oru-2.5.1-order": lambda: oru.build(ordered(report()), profile(accession_fields=["OBR-18", "OBR-20"])),
    "oru-2.5.1-filed-by-order": lambda: oru.build(filled(report()), profile(filler_number="order")),
    "oru-2.5.1-site": lambda: oru.build(
        report(),
        profile(
            narrative="FT",
            document="RP",
            codes={"SCT|118565006": "VOL^Volumen^99KIS"},
            viewer_url="https://viewer.example.org/?study={study_uid}&acc={accession_number}",
            fields={"PV1-2": "O", "OBR-16": "1^Arzt", "MSH-8": "{model}", "OBX-16": "{model_version}"},
            z_segments=["ZDS|{study_uid}^HILUM^Application^DICOM"],
            status={"preliminary": "R"},
            acknowledgement="application",
        ),
    ),
    "oru-2.5.1-final": lambda: oru.build(
        report(kind=ReportKind.FINAL, number=2, by="Dr. A & B", verified=True), profile()
    ),
    "oru-2.5.1-corrected": lambda: oru.build(
        report(kind=ReportKind.CORRECTED, number=3, reason="The patient was merged."), profile()
    ),
    "oru-2.5.1-cancelled": lambda: oru.build(
        report(EMPTY, kind=ReportKind.CANCELLED, number=4, reason="Wrong images."), profile()
    ),
    "mdm-2.5.1": lambda: mdm.build(with_pdf(ordered(report())), profile(message="mdm")),
    "oru-2.7-radlex": lambda: oru.build(
        report(EMPTY), profile(version="2.7", code_system="RADLEX", codes={"SCT|52101004": "JA^vorhanden^99KIS"})
    ),
    "mdm-2.5.1-reference": lambda: mdm.build(with_pdf(ordered(report())), profile(message="mdm", document="RP")),
    "mdm-2.3.1-text": lambda: mdm.build(report(), profile(message="mdm", version="2.3.1")),
    "mdm-2.8-final": lambda: mdm.build(
        with_pdf(report(kind=ReportKind.FINAL, number=2, by="Dr. A", verified=True)),
        profile(message="mdm", version="2.8"),
    ),
    "mdm-2.5.1-cancelled": lambda: mdm.build(report(kind=ReportKind.CANCELLED, number=3), profile(message="mdm")),
}


def readable(raw: bytes) -> str:
    """As a file: by its own character set, one segment a line."""
    charset = raw.decode("latin-1").split("\r")[0].split("|")[17]
    return raw.decode(CHARSETS[charset]).replace("\r", "\n")


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """To the byte; hl7apy finds it valid in its own version, and python-hl7 reads it."""
    raw = CASES[name]()
    expected = (GOLDEN / f"{name}.hl7").read_text(encoding="utf-8")
    assert readable(raw) == expected
    text = expected.replace("\n", "\r")
    assert hl7.parse(text).segment("MSH")[10]
    known = "\r".join(line for line in text.split("\r") if not line.startswith("Z"))
    # hl7apy's search for groups misplaces OBX of ORU 2.8; what was built is validated group by group in any case.
    grouped = name != "oru-2.8-cwe-pdf"
    message = parse_message(known, find_groups=grouped)
    if grouped:
        message.validate()
    assert message.version == name.split("-")[1]


@pytest.mark.parametrize(
    ("wanted", "known", "expected"),
    [
        ("own", True, "HILUM"),
        ("order", True, "F7^RIS"),
        ("order", False, "HILUM"),
        ("accession", True, "ACC1"),
        ("accession", False, "HILUM"),
    ],
)
def test_filler_number_is_what_the_site_wants(wanted: str, known: bool, expected: str) -> None:
    """Of the result, of the order where the RIS gives it, or the accession number; ORC-3, OBR-3 and TXA-15 agree."""
    order = replace(ORDER, filler_number=(Identifier(id="F7", authority="RIS"),))
    context = StudyContext(patient=PATIENT, order=(order,) if known else ())
    content = replace(report(header=source(accession_number="")), subject=context.subject(""))
    for build, kind in ((oru.build, "oru"), (mdm.build, "mdm")):
        lines = build(content, profile(message=kind, filler_number=wanted)).decode().split("\r")
        places = {"ORC": 3, "OBR": 3, "TXA": 15}
        found = {line.split("|")[places[line[:3]]] for line in lines if line[:3] in places}
        assert len(found) == 1
        assert found == {expected} if known and wanted != "own" else next(iter(found)).endswith(f"^{expected}")


def test_reason_for_study_goes_back_to_its_asker() -> None:
    """OBR-31, escaped, as text."""
    raw = oru.build(ordered(report()), profile()).decode()
    (request,) = [line for line in raw.split("\r") if line.startswith("OBR")]
    assert request.split("|")[31] == "^Headache \\T\\ nausea"


def test_a_chinese_name_arrives_whole_in_gb18030() -> None:
    """Bytes of 葉 look like a delimiter; a receiver that decodes first has the name."""
    raw = oru.build(report(header=source(LEAF)), profile(charset="GB 18030-2000"))
    assert "葉".encode("gb18030") in raw
    name = hl7.parse(raw.decode("gb18030")).segment("PID")[5]
    assert str(name).split("~")[1] == "葉^大雄^^^^^L^I"


@pytest.mark.parametrize("version", ["2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8"])
@pytest.mark.parametrize("kind", RESULTS)
def test_every_version_and_edition_is_valid(version: str, kind: ReportKind) -> None:
    """As ORU and as MDM; building validates."""
    content = with_pdf(ordered(report(FLAGGED, kind=kind, number=2)))
    assert oru.build(content, profile(version=version, document="ED"))
    assert mdm.build(content, profile(version=version, message="mdm"))


@pytest.mark.parametrize(
    ("edition", "event", "document", "parent"),
    [
        ({}, "T02", ".1", ""),
        ({"number": 2}, "T10", ".2", ".1"),  # reported again, not confirmed: still not an original
        ({"earlier": 3}, "T10", ".4", ".3"),  # of a newer result, after three editions about the older one
        ({"earlier": 3, "number": 2, "kind": ReportKind.CORRECTED}, "T10", ".5", ".4"),
        ({"follows": True}, "T10", ".1", ".0"),  # after it was told that there is no result
        ({"number": 2, "kind": ReportKind.CANCELLED}, "T11", ".1", ""),
    ],
)
def test_a_document_takes_the_place_of_the_one_before(
    edition: dict[str, Any], event: str, document: str, parent: str
) -> None:
    """TXA-12 is used once, TXA-13 names what is replaced: two originals would stand side by side in the EHR."""
    raw = mdm.build(report(**edition), profile(message="mdm")).decode()
    (fields,) = [line.split("|") for line in raw.split("\r") if line.startswith("TXA")]
    own = report().filler_number
    assert f"MDM^{event}^" in raw
    assert fields[12] == f"{own}{document}^HILUM"
    assert fields[13] == (f"{own}{parent}^HILUM" if parent else "")


def test_a_large_pdf_is_carried_whole() -> None:
    """Ten megabytes: what is validated leaves out its data, what is sent does not."""
    pdf = bytes(range(256)) * 40_000
    raw = oru.build(replace(with_pdf(report()), pdf=pdf), profile(document="ED"))
    (embedded,) = [line for line in raw.split(b"\r") if line.split(b"|")[2:3] == [b"ED"]]
    assert base64.b64decode(embedded.split(b"|")[5].split(b"^")[4]) == pdf


def test_a_final_edition_names_who_has_confirmed_it() -> None:
    """And no edition is final without a person."""
    final = readable(CASES["oru-2.5.1-final"]())
    assert "Confirmed by Dr. A \\T\\ B" in final
    for name in CASES:
        statuses = {line.split("|")[25] for line in readable(CASES[name]()).split("\n") if line.startswith("OBR")}
        assert ("F" in statuses) == ("final" in name)


def test_a_cancellation_carries_no_value() -> None:
    """What was reported is deleted, observation by observation, for receivers that keep what is not replaced."""
    lines = [line.split("|") for line in readable(CASES["oru-2.5.1-cancelled"]()).split("\n") if line.startswith("OBX")]
    assert "1234.5" not in str(lines)
    assert {line[11] for line in lines if line[2] in ("NM", "CE", "RP")} == {"D"}
    assert {line[11] for line in lines if line[2] in ("ST", "TX")} == {"X"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"version": "3.0"}, "not an HL7 version"),
        ({"charset": "KLINGON"}, "not a character set"),
        ({"status": {"preliminary": "F"}}, "confirmed"),
        ({"fields": {"PID-3": "x"}}, "cannot be changed"),
        ({"fields": {"OBX-11": "F"}}, "cannot be changed"),
        ({"fields": {"PID3": "x"}}, "not a place"),
        ({"fields": {"PID-4": "{password}"}}, "not known"),
        ({"fields": {"PID-4": "a\rOBX|1"}}, "one line"),
        ({"z_segments": ["OBX|1"]}, "Z segment"),
        ({"service": "x"}, "CODE"),
        ({"codes": {"118565006": "V^V^L"}}, "SYSTEM"),
        ({"viewer_url": "https://x/{nobody}"}, "not known"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(wrong: dict[str, object], said: str) -> None:
    """When the configuration is read."""
    with pytest.raises(ValidationError, match=said):
        profile(**wrong)


def test_template_values_are_escaped() -> None:
    """What comes from the images cannot leave its field; what the site wrote is HL7."""
    evil = source(accession_number="A|B^C")
    raw = oru.build(
        report(header=evil), profile(fields={"OBR-16": "x^{accession_number}"}, z_segments=["ZZ1|{accession_number}"])
    )
    assert b"|x^A\\F\\B\\S\\C|" in raw
    assert raw.endswith(b"\rZZ1|A\\F\\B\\S\\C\r")


def test_a_template_that_breaks_the_message_makes_none() -> None:
    """A field by template is checked like any other."""
    with pytest.raises(MessageInvalid):
        oru.build(report(), profile(fields={"OBR-4": ""}))


if __name__ == "__main__":
    for case, build in CASES.items():
        (GOLDEN / f"{case}.hl7").write_text(readable(build()), encoding="utf-8")
