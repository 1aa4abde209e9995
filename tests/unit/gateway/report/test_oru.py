"""ORU^R01: what the message says, read back by two other HL7 libraries."""

from __future__ import annotations

from dataclasses import replace

import hl7
import pytest
from hl7apy.parser import parse_message

from gateway.domain.errors import MessageInvalid
from gateway.domain.messages import Code, MeasurementResult, Outcome
from gateway.domain.study import Header, Patient
from gateway.hl7.head import read_head
from gateway.report.oru import build
from gateway.report.settings import CHARSETS, Hl7Destination
from tests.support.outcomes import MILLILITRE, PATIENT, VOLUME, outcome, report, source


def profile(**more: object) -> Hl7Destination:
    return Hl7Destination.model_validate(
        {"kind": "hl7", "host": "127.0.0.1", "port": 2575, "time_zone": "Europe/Berlin", **more}
    )


def written(result: Outcome | None = None, header: Header | None = None, **more: object) -> hl7.Message:
    to = profile(**more)
    return hl7.parse(build(report(result, header), to).decode(CHARSETS[to.charset]))


def observations(message: hl7.Message, kind: str) -> list[hl7.Segment]:
    return [segment for segment in message.segments("OBX") if str(segment[2]) == kind]


def test_header_names_the_profile() -> None:
    """MSH as the destination wants it; MSH-15 and 16 are empty: original acknowledgement mode."""
    message = written(sending_facility="RAD", receiving_application="EHR", receiving_facility="MAIN", processing_id="T")
    head = message.segment("MSH")
    assert [str(head[field]) for field in (3, 4, 5, 6)] == ["HILUM", "RAD", "EHR", "MAIN"]
    assert [str(head[field]) for field in (7, 9, 10, 11, 12)] == [
        "20231114231320+0100",
        "ORU^R01^ORU_R01",
        "CTRL1",
        "T",
        "2.5.1",
    ]
    assert [str(head[field]) for field in (15, 16, 18)] == ["", "", "UNICODE UTF-8"]


def test_patient_is_the_one_of_the_images() -> None:
    """PID-3 with the issuer; PID-5 with the suffix before the prefix, as XPN has it."""
    patient = written().segment("PID")
    assert str(patient[3]) == "P1^^^HOSPITAL^PI"
    assert str(patient[5]) == "Doe^Jane^Q^Jr^Dr^^L^A"
    assert [str(patient[field]) for field in (7, 8)] == ["19700102", "F"]


def test_every_name_group_is_a_repetition() -> None:
    """Alphabetic, ideographic, phonetic: XPN-8 A, I, P."""
    header = source(replace(PATIENT, name="Yamada^Tarou=山田^太郎=やまだ^たろう"))
    name = str(written(header=header).segment("PID")[5])
    assert name == "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"
    only = source(replace(PATIENT, name="=山田^太郎"))
    assert str(written(header=only).segment("PID")[5]) == "山田^太郎^^^^^L^I"


def test_order_is_preliminary_and_dated() -> None:
    """ORC and OBR: our filler number, accession number, study time without and result time with an offset."""
    message = written()
    order, request = message.segment("ORC"), message.segment("OBR")
    assert str(order[1]) == "RE"
    assert str(order[3]) == str(request[3]) != "ACC1"
    assert [str(request[field]) for field in (4, 7, 18, 22, 24, 25)] == [
        "18748-4^Diagnostic imaging study^LN^^MR head^L",
        "20240102101112.1234",
        "ACC1",
        "20231114231320+0100",
        "NMR",
        "P",
    ]
    assert {str(segment[11]) for segment in message.segments("OBX")} == {"P"}


def test_filler_number_belongs_to_study_series_and_model() -> None:
    """A new version of a result replaces the old one; another series or model does not."""
    first = str(written().segment("OBR")[3])
    again = str(written(outcome(job_id="b" * 32, measurements=())).segment("OBR")[3])
    other = str(written(outcome(source_series_uid="1.2.4")).segment("OBR")[3])
    assert first == again
    assert first != other


def test_measurements_are_numbers_with_units_and_the_model() -> None:
    """NM, UCUM, the structure by name, the build that measured."""
    message = written()
    (number,) = observations(message, "NM")
    assert str(number[3]) == "118565006^Volume^SCT^^Volume of Brain^99HILUM"
    assert [str(number[field]) for field in (4, 5, 6)] == ["1", "1234.5", "mL^milliliter^UCUM"]
    assert str(number[17]) == "brain-mask^brain-mask 1.2^99HILUM"
    assert str(number[18]) == "brain-mask 1.2 cccccccccccc^Somebody^2.25.77^ISO"


def test_study_and_objects_are_named_by_uid() -> None:
    """The study in the first observation, each result object as a reference pointer."""
    message = written()
    assert [str(field) for field in message.segments("OBX")[0][1:6]] == [
        "1",
        "ST",
        "113014^DICOM Study^DCM",
        "",
        "1.2.840.99.1",
    ]
    assert [str(segment[5]).split("^")[0] for segment in observations(message, "RP")] == ["2.25.1", "2.25.2"]


def test_narrative_says_what_a_reader_must_know() -> None:
    """Preliminary, intended use, numbers in words, empty segments, one line for each flag."""
    empty = replace(outcome().segments[0], number=2, label="Lesion", voxels=0)
    result = outcome(segments=(*outcome().segments, empty), flags=("Two slices are missing.", "Odd spacing."))
    lines = [str(segment[5]) for segment in observations(written(result), "TX")]
    assert lines[0].startswith("AI result, preliminary, not verified by a person.")
    assert lines[1:] == [
        "Intended use: Research only",
        "Volume of Brain: 1234.5 mL",
        "Lesion: nothing found",
        "Two slices are missing.",
        "Odd spacing.",
    ]


def test_same_content_same_bytes_and_hl7apy_reads_them() -> None:
    """The bytes are frozen in the outbox, but they would also be the same again."""
    first, second = build(report(), profile()), build(report(), profile())
    assert first == second
    assert first.endswith(b"\r")
    message = parse_message(first.decode(), find_groups=True)
    message.validate()
    assert message.msh.msh_10.value == "CTRL1"


def test_hostile_text_stays_in_its_field() -> None:
    """Delimiters, escapes, segment ends and framing bytes in a name, a description and a flag change no structure."""
    evil = "A|B^C~D\\E&F\rOBX|9|NM|x\n\x0b\x1c\x00\\X0D\\"
    header = source(replace(PATIENT, name=f"{evil}^G"), study_description=evil)
    raw = build(report(outcome(flags=(evil,)), header), profile())
    assert not set(raw) & {0x0A, 0x0B, 0x1C, 0x00}
    message = hl7.parse(raw.decode())
    assert len(message.segments("OBX")) == len(written(outcome(flags=("x",))).segments("OBX"))
    plain = "A|B^C~D\\E&F OBX|9|NM|x \\X0D\\"
    assert message.unescape(str(message.segments("OBX")[-1][5])) == plain
    # In a name, `^` is DICOM's own delimiter.
    assert message.unescape(str(message.segment("PID")[5]).split("^")[0]) == "A|B"


@pytest.mark.parametrize("charset", sorted(CHARSETS))
def test_each_character_set_is_written_as_named(charset: str) -> None:
    """MSH-18 names the encoding of the bytes; where that switches by escapes (ISO 2022), MSH-20 says so."""
    raw = build(report(), profile(charset=charset))
    head, line = read_head(raw), raw.split(b"\r")[0].decode()
    switched = {"ISO IR87": "|~ISO IR87||ISO 2022-1994"}
    assert line.endswith(switched.get(charset, f"|{charset}"))
    assert head.codec in (CHARSETS[charset], f"{CHARSETS[charset]}_ext")


def test_what_a_character_set_lacks_is_noted() -> None:
    """A name group that cannot be written goes, a letter becomes a question mark, a remark says so; nothing else."""
    header = source(replace(PATIENT, name="Müller^Jürgen=山田"), study_description="Kopf 頭")
    latin = written(header=header, charset="8859/1")
    assert str(latin.segment("PID")[5]) == "Müller^Jürgen^^^^^L^A"
    assert "Kopf ?" in str(latin.segment("OBR")[4])
    assert "character set" in str(latin.segments("OBX")[-1][5])
    assert "character set" not in str(written(header=header).segments("OBX")[-1][5])
    plain = written(header=source(replace(PATIENT, name="Müller")), charset="ASCII")
    assert str(plain.segment("PID")[5]).startswith("M?ller^")


@pytest.mark.parametrize(
    ("header", "charset", "reason"),
    [
        (source(Patient(name="Doe")), "ASCII", "PID-3"),
        (source(replace(PATIENT, patient_id="P1ü")), "ASCII", "patient id"),
        (source(replace(PATIENT, patient_id="P1\r2")), "ASCII", "patient id"),
        (source(accession_number="Ä1"), "ASCII", "accession number"),
    ],
)
def test_ids_are_never_altered(header: Header, charset: str, reason: str) -> None:
    """An id that is missing or cannot be written as it is makes no message."""
    with pytest.raises(MessageInvalid, match=reason):
        build(report(header=header), profile(charset=charset))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e17])
def test_numbers_that_are_none_make_no_message(value: float) -> None:
    """NaN, infinity, and what does not fit into NM."""
    bad = outcome(measurements=(MeasurementResult(name=VOLUME, value=value, unit=MILLILITRE, segment=1),))
    with pytest.raises(MessageInvalid):
        build(report(bad), profile())


@pytest.mark.parametrize(
    ("confidence", "flag"), [("", ""), ("high", "AI-HIGH"), ("moderate", "AI-MODERATE"), ("low", "AI-LOW")]
)
def test_confidence_is_no_abnormal_flag(confidence: str, flag: str) -> None:
    """OBX-8 says it in a code of its own: `L` would say that the volume is below normal."""
    sure = MeasurementResult(name=VOLUME, value=1.0, unit=MILLILITRE, segment=1, confidence=confidence)
    (number,) = observations(written(outcome(measurements=(sure,))), "NM")
    assert str(number[8]) == flag


def test_unit_must_be_ucum() -> None:
    """A number without a UCUM unit makes no message."""
    unit = Code(value="ml", scheme="99LOCAL", meaning="ml")
    bad = outcome(measurements=(MeasurementResult(name=VOLUME, value=1.0, unit=unit, segment=1),))
    with pytest.raises(MessageInvalid, match="UCUM"):
        build(report(bad), profile())


def test_refused_outcome_has_no_message() -> None:
    """There is no result to report."""
    with pytest.raises(MessageInvalid):
        report(outcome(status="refused"))


def test_control_id_must_fit() -> None:
    """MSH-10 has 20 characters."""
    with pytest.raises(MessageInvalid, match="MSH-10"):
        build(replace(report(), control_id="x" * 21), profile())


def test_times_that_are_none_are_left_out() -> None:
    """A broken study date makes no broken timestamp."""
    request = written(header=source(study_date="2024-1-2", study_time="xx")).segment("OBR")
    assert str(request[7]) == ""
    dated = written(header=source(study_time="256070")).segment("OBR")
    assert str(dated[7]) == "20240102"
