"""A message for trials (MSH-11 `T`): about nobody, from no model. Pure."""

from __future__ import annotations

from gateway.domain.ids import InstanceUID, JobId, SeriesUID, StudyUID, derived_uid, digest
from gateway.domain.job import Edition, ReportKind
from gateway.domain.messages import ModelIdentity, Outcome
from gateway.domain.study import Header, Patient
from gateway.report import mdm, oru
from gateway.report.content import ReportContent
from gateway.report.settings import Hl7Destination


def trial_message(profile: Hl7Destination, at: float) -> bytes:
    """What the destination gets from `hilum check` where it wants to be tried; `at` is now, in seconds since the epoch."""
    job = digest("trial", str(at))[:32]
    source = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
        sop_instance_uid=InstanceUID(derived_uid("trial instance")),
        series_uid=SeriesUID(derived_uid("trial series")),
        study_uid=StudyUID(derived_uid("trial study")),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient=Patient(patient_id="HILUM-TEST", name="Test^Hilum"),
        study_description="Test of the interface",
    )
    model = ModelIdentity(name="hilum-check", version="1", digest=job, device_uid="2.25.1", manufacturer="Hilum")
    content = ReportContent(
        outcome=Outcome(
            job_id=job, status="complete", model=model, flags=("This message is a test of the interface.",)
        ),
        source=source,
        control_id=job[:20].upper(),
        edition=Edition(job_id=JobId(job), number=1, kind=ReportKind.PRELIMINARY, at=at),
    )
    trial = profile.model_copy(update={"processing_id": "T"})
    return mdm.build(content, trial) if profile.message == "mdm" else oru.build(content, trial)
