"""Outcomes to report, and where they come from."""

from __future__ import annotations

from dataclasses import replace

from gateway.domain.ids import InstanceUID, JobId, SeriesUID, StudyUID
from gateway.domain.job import Edition, ReportKind
from gateway.domain.messages import Code, MeasurementResult, ModelIdentity, Outcome, ResultObject, SegmentResult
from gateway.domain.study import Header, Patient
from gateway.report.content import ReportContent

BRAIN = Code(value="12738006", scheme="SCT", meaning="Brain")
VOLUME = Code(value="118565006", scheme="SCT", meaning="Volume")
MILLILITRE = Code(value="mL", scheme="UCUM", meaning="milliliter")
NOON = 1_700_000_000.0  # 2023-11-14T22:13:20Z
PATIENT = Patient(patient_id="P1", issuer="HOSPITAL", name="Doe^Jane^Q^Dr^Jr", birth_date="19700102", sex="F")


RESULTS = tuple(kind for kind in ReportKind if kind is not ReportKind.REFUSED)
"""Editions that are about a result."""


def outcome(**changes: object) -> Outcome:
    """One brain of 1234.5 ml, a SEG and an SR, no flags."""
    made = Outcome(
        job_id="a" * 32,
        status="complete",
        model=ModelIdentity(
            name="brain-mask", version="1.2", digest="c" * 64, device_uid="2.25.77", manufacturer="Somebody"
        ),
        source_series_uid="1.2.3",
        segments=(SegmentResult(number=1, label="Brain", category=BRAIN, type=BRAIN, voxels=9),),
        measurements=(MeasurementResult(name=VOLUME, value=1234.5, unit=MILLILITRE, segment=1),),
        objects=(result_object("seg", "2.25.1"), result_object("sr", "2.25.2")),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def result_object(role: str, uid: str) -> ResultObject:
    """A result object of a role."""
    return ResultObject(
        role=role,
        file=f"key of {uid}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid=uid,
        series_uid=f"{uid}.1",
        sha256="0" * 64,
        size=1,
    )


def source(patient: Patient = PATIENT, **changes: object) -> Header:
    """An MR image of that patient."""
    made = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid=InstanceUID("1.2.3.1"),
        series_uid=SeriesUID("1.2.3"),
        study_uid=StudyUID("1.2.840.99.1"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient=patient,
        modality="MR",
        accession_number="ACC1",
        study_date="20240102",
        study_time="101112.123456",
        study_description="MR head",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def report(
    result: Outcome | None = None,
    header: Header | None = None,
    kind: ReportKind = ReportKind.PRELIMINARY,
    **more: object,
) -> ReportContent:
    """An edition of the report about an outcome, of 2023-11-14T22:13:20Z; `more` changes the edition."""
    edition = Edition(job_id=JobId("a" * 32), number=1, kind=kind, at=NOON)
    return ReportContent(
        outcome=result or outcome(),
        source=header or source(),
        control_id="CTRL1",
        edition=replace(edition, **more),  # type: ignore[arg-type]
        intended_use="Research only",
    )
