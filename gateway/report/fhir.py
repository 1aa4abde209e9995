"""The report about a job as a FHIR R4 transaction. Pure: ids and times are given, the same give the same bytes.

What goes where is in docs/fhir.md. It follows the HL7 guide "DICOM SR to FHIR" (Device for the algorithm, an Observation for
each measurement) and the names of IHE RAD IMR (DiagnosticReport with ImagingStudy and presentedForm). fhir.resources checks
every resource; of its versions R4B is taken, whose resources used here are those of R4.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError

from gateway.domain import refusals
from gateway.domain.codes import ABSENT, PRESENT
from gateway.domain.errors import MessageInvalid
from gateway.domain.job import ReportKind
from gateway.domain.messages import Code, FindingResult, MeasurementResult, SegmentResult
from gateway.hl7.er7 import date, moment, number
from gateway.report.codes import codings, quantity
from gateway.report.content import ReportContent, narrative, title
from gateway.report.settings import FhirDestination

Resource = dict[str, Any]

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
    "RADLEX": "http://radlex.org",
    "V2-0074": "http://terminology.hl7.org/CodeSystem/v2-0074",
    "V2-0203": "http://terminology.hl7.org/CodeSystem/v2-0203",
    "ABSENT": "http://terminology.hl7.org/CodeSystem/data-absent-reason",
    "CATEGORY": "http://terminology.hl7.org/CodeSystem/observation-category",
}
_OWN = "urn:hilum"
_UID = "urn:dicom:uid"
_URI = "urn:ietf:rfc:3986"
_STATUS = {
    ReportKind.PRELIMINARY: "preliminary",
    ReportKind.FINAL: "final",
    ReportKind.CORRECTED: "amended",
    ReportKind.CANCELLED: "entered-in-error",
    ReportKind.REFUSED: "cancelled",  # "not started or not completed"
}
_MODALITIES = {"seg": "SEG", "sr": "SR", "pdf": "DOC", "ko": "KO", "pm": "RWV", "sc": "OT"}
_REPORT = Code(value="18748-4", scheme="LN", meaning="Diagnostic imaging study")


def build(content: ReportContent, profile: FhirDestination) -> bytes:
    """The transaction as JSON; raises MessageInvalid where a resource is not valid."""
    if not content.source.patient.patient_id.strip():
        raise MessageInvalid("the images have no patient id")
    entries = list(_Transaction(content, profile).entries())
    bundle: Resource = {
        "resourceType": "Bundle",
        "type": "transaction",
        "timestamp": _instant(content.edition.at),
        "entry": entries,
    }
    try:
        Bundle.model_validate(bundle)
    except ValidationError as error:
        places = sorted({".".join(str(part) for part in item["loc"]) for item in error.errors()})
        raise MessageInvalid(f"the FHIR resources are not valid: {', '.join(places)[:200]}") from None
    return json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).encode()


class _Transaction:
    """The resources of one edition, which name each other."""

    def __init__(self, content: ReportContent, profile: FhirDestination) -> None:
        self._content, self._profile = content, profile
        self._status = _STATUS[content.kind]
        self._zone = ZoneInfo(profile.time_zone) if profile.time_zone else None
        self._subject = self._patient_reference()

    def entries(self) -> Iterator[Resource]:
        """Every entry; what is referred to comes first."""
        content = self._content
        if self._profile.patient == "create":
            yield self._once("patient", self._patient(), f"identifier={self._patient_token()}")
        device = content.outcome.model.device_uid
        yield self._once("device", self._device(), f"identifier={_URI}|urn:oid:{device}")
        study = self._imaging_study()
        yield self._once("study", study, f"identifier={_UID}|urn:oid:{content.source.study_uid}")
        observations = self.observations()
        for slot, resource in (observations | self._gone(observations)).items():
            yield self._version(slot, resource)
        yield self._version("report", self._report(list(observations)))
        if content.pdf:
            yield self._version("document", self._document())
        yield self._once("provenance", self._provenance(), f"_tag={_OWN}:edition|{content.control_id}")

    def observations(self) -> dict[str, Resource]:
        """What was found, by the name of its place in the transaction."""
        outcome = self._content.outcome
        found = {f"finding-{item.number}": self._segment(item) for item in outcome.segments}
        found |= {f"place-{item.number}": self._finding(item) for item in outcome.findings}
        numbers = enumerate(outcome.measurements, start=1)
        found |= {f"measurement-{index}": self._measurement(item) for index, item in numbers}
        return found | ({"refusal-1": self._refusal()} if self._content.kind is ReportKind.REFUSED else {})

    def _gone(self, there: Collection[str]) -> dict[str, Resource]:
        """What earlier results said that this one does not say any more: the server may have it, and somebody would still
        find it there."""
        content = self._content
        edition = replace(content.edition, kind=ReportKind.CANCELLED)
        gone: dict[str, Resource] = {}
        for outcome in content.replaced:
            gone |= _Transaction(replace(content, outcome=outcome, edition=edition), self._profile).observations()
        if content.edition.follows:
            empty = replace(content, outcome=replace(content.outcome, status="complete"), edition=edition)
            gone["refusal-1"] = _Transaction(empty, self._profile).refusal({})
        return {slot: resource for slot, resource in gone.items() if slot not in there}

    def _once(self, slot: str, resource: Resource, query: str) -> Resource:
        """Created only where there is none yet: a retry, and the next report, find what is there."""
        kind = resource["resourceType"]
        request = {"method": "POST", "url": kind, "ifNoneExist": quote(query, safe="=|:/_.-")}
        return {"fullUrl": self._url(slot), "resource": resource, "request": request}

    def _version(self, slot: str, resource: Resource) -> Resource:
        """Created where there is none; replaced, as a whole, by an edition that follows another."""
        token = f"identifier={_OWN}:{slot.split('-')[0]}|{self._number(slot)}"
        if not self._content.replaces:
            return self._once(slot, resource, token)
        request = {"method": "PUT", "url": f"{resource['resourceType']}?{quote(token, safe='=|:/_.-')}"}
        return {"fullUrl": self._url(slot), "resource": resource, "request": request}

    def _number(self, slot: str) -> str:
        _, dash, index = slot.partition("-")
        return f"{self._content.filler_number}{dash}{index}"

    def _url(self, slot: str) -> str:
        return f"urn:uuid:{uuid.UUID(hashlib.sha256(f'{self._content.control_id} {slot}'.encode()).hexdigest()[:32])}"

    def _reference(self, slot: str) -> Resource:
        return {"reference": self._url(slot)}

    def _identifier(self, slot: str) -> list[Resource]:
        return [{"system": f"{_OWN}:{slot.split('-')[0]}", "value": self._number(slot)}]

    def _patient_token(self) -> str:
        patient_id, system = self._content.source.patient.patient_id.strip(), self._profile.patient_system
        return f"{system}|{patient_id}" if system else patient_id

    def _patient_reference(self) -> Resource:
        if self._profile.patient == "create":
            return self._reference("patient")
        if self._profile.patient == "search":
            return {"reference": f"Patient?identifier={quote(self._patient_token(), safe='|:/.-')}"}
        return {"type": "Patient", "identifier": self._patient_identifier()}

    def _patient_identifier(self) -> Resource:
        system = {"system": self._profile.patient_system} if self._profile.patient_system else {}
        return {**system, "value": self._content.source.patient.patient_id.strip()}

    def _patient(self) -> Resource:
        patient = self._content.source.patient
        gender = {"M": "male", "F": "female", "O": "other"}.get(patient.sex.strip())
        born = date(patient.birth_date)
        found = {
            "resourceType": "Patient",
            "identifier": [self._patient_identifier()],
            "name": [_name(group) for group in patient.name.split("=")[:3] if group.strip("^ ")],
            "gender": gender,
            "birthDate": f"{born[:4]}-{born[4:6]}-{born[6:]}" if len(born) == 8 else None,
        }
        return _filled(found)

    def _device(self) -> Resource:
        model = self._content.outcome.model
        return {
            "resourceType": "Device",
            "identifier": [
                {"system": _URI, "value": f"urn:oid:{model.device_uid}"},
                {"system": f"{_OWN}:bundle-digest", "value": model.digest},
            ],
            "manufacturer": model.manufacturer,
            "deviceName": [{"name": model.name, "type": "model-name"}],
            "type": {"text": "AI model"},
            "version": [{"value": model.version}],
        }

    def _imaging_study(self) -> Resource:
        content = self._content
        source, outcome = content.source, content.outcome
        series: dict[str, Resource] = {}
        if outcome.source_series_uid:
            series[outcome.source_series_uid] = {
                "uid": outcome.source_series_uid,
                "modality": _modality(source.modality or "OT"),
            }
        for item in outcome.objects:
            one = series.setdefault(item.series_uid, {"uid": item.series_uid, "modality": _modality_of(item.role)})
            instance = {
                "uid": item.sop_instance_uid,
                "sopClass": {"system": _URI, "code": f"urn:oid:{item.sop_class_uid}"},
            }
            one.setdefault("instance", []).append(instance)
        accession = content.named.accession_number
        identifiers: list[Resource] = [{"system": _UID, "value": f"urn:oid:{source.study_uid}"}]
        if accession:
            identifiers.append(
                {"type": _concept(Code(value="ACSN", scheme="V2-0203", meaning="Accession ID")), "value": accession}
            )
        found = {
            "resourceType": "ImagingStudy",
            "identifier": identifiers,
            "status": "available",
            "subject": self._subject,
            "started": self._study_time(),
            "description": source.study_description.strip() or None,
            "reasonCode": [{"text": content.named.reason}] if content.named.reason else None,
            "series": list(series.values()) or None,
        }
        return _filled(found)

    def _observation(self, slot: str, code: Sequence[Code], value: Resource, site: Resource | None) -> Resource:
        category = Code(value="imaging", scheme="CATEGORY", meaning="Imaging")
        found = {
            "resourceType": "Observation",
            "identifier": self._identifier(slot),
            "status": self._status,
            "category": [_concept(category)],
            "code": _concept(*code),
            "subject": self._subject,
            "effectiveDateTime": self._study_time(),
            "issued": _instant(self._content.edition.at),
            "bodySite": site,
            "device": self._reference("device"),
            "derivedFrom": [self._reference("study")],
            "note": [{"text": flag} for flag in self._content.outcome.flags] or None,
        }
        # What is entered in error keeps no value that somebody could still read.
        return _filled(found | ({} if self._content.kind is ReportKind.CANCELLED else value))

    def _segment(self, item: SegmentResult) -> Resource:
        value = {"valueCodeableConcept": _concept(*self._codings(PRESENT if item.voxels else ABSENT))}
        return self._observation(f"finding-{item.number}", self._codings(item.type), value, self._structure(item))

    def _structure(self, item: SegmentResult) -> Resource:
        return _concept(*self._codings(item.type), text=item.label)

    def _finding(self, item: FindingResult) -> Resource:
        """One thing that was found at a place."""
        value = {"valueCodeableConcept": _concept(*self._codings(PRESENT))}
        found = self._observation(f"place-{item.number}", self._codings(item.name), value, self._site(item))
        found["code"]["text"] = item.label
        return found

    def _site(self, item: FindingResult) -> Resource | None:
        """Where in the body, with its side beside it."""
        if not item.site:
            return None
        words = ", ".join(code.meaning for code in (*item.site, *item.laterality))
        return _concept(*self._codings(item.site[0]), text=words)

    def _codings(self, code: Code) -> tuple[Code, ...]:
        return codings(code, self._profile.code_system)

    def _measurement(self, item: MeasurementResult) -> Resource:
        outcome = self._content.outcome
        index = outcome.measurements.index(item) + 1
        segment = next((one for one in outcome.segments if one.number == item.segment), None)
        finding = next((one for one in outcome.findings if one.number == item.finding), None)
        site = self._structure(segment) if segment else self._site(finding) if finding else None
        try:
            value = float(number(item.value))
        except ValueError:
            raise MessageInvalid(f"{item.name.meaning} is not a finite number") from None
        if item.unit.scheme != "UCUM":
            raise MessageInvalid(f"the unit of {item.name.meaning} is not UCUM")
        amount = {"value": value, "unit": item.unit.meaning, "system": _SYSTEMS["UCUM"], "code": item.unit.value}
        said: Resource = {"valueQuantity": amount}
        if item.verdict:
            said["interpretation"] = [_concept(*self._codings(code)) for code in item.verdict]
        found = self._observation(f"measurement-{index}", quantity(item, self._profile.code_system), said, site)
        found["code"]["text"] = title(item, outcome)
        return found

    def refusal(self, said: Resource) -> Resource:
        """That the images were not processed."""
        return self._observation("refusal-1", (refusals.SUMMARY,), said, None)

    def _refusal(self) -> Resource:
        """No value, and why: not performed, in the code system for that and in the reason's own codes."""
        outcome = self._content.outcome
        absent = Code(value="not-performed", scheme="ABSENT", meaning="Not Performed")
        codings = [_concept(code)["coding"][0] for code in (absent, refusals.NOT_ATTEMPTED, *outcome.refusal)]
        reason = {"dataAbsentReason": {"coding": codings, "text": refusals.sentence(outcome.reason)}}
        return self.refusal(reason)

    def _report(self, observations: Sequence[str]) -> Resource:
        content, named, by = self._content, self._content.named, self._content.edition.by
        sentences = list(narrative(content))
        placer = named.placer_number[0].id if named.placer_number else ""
        procedure = named.procedure[0] if named.procedure else _REPORT
        page = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
        found = {
            "resourceType": "DiagnosticReport",
            "identifier": self._identifier("report"),
            "basedOn": [{"type": "ServiceRequest", "identifier": {"value": placer}}] if placer else None,
            "status": self._status,
            "category": [_concept(Code(value="RAD", scheme="V2-0074", meaning="Radiology"))],
            "code": _concept(procedure),
            "subject": self._subject,
            "effectiveDateTime": self._study_time(),
            "issued": _instant(content.edition.at),
            "resultsInterpreter": [{"display": by}] if by else None,
            "result": [self._reference(slot) for slot in observations] or None,
            "imagingStudy": [self._reference("study")],
            "conclusion": "\n".join(sentences),
            "presentedForm": [_attachment(page.encode(), "text/html", "AI result")],
        }
        return _filled(found)

    def _document(self) -> Resource:
        status = "preliminary" if not self._content.edition.verified else self._status
        return {
            "resourceType": "DocumentReference",
            "identifier": self._identifier("document"),
            "status": "entered-in-error" if self._content.kind is ReportKind.CANCELLED else "current",
            "docStatus": self._status if self._status != "amended" else status,
            "type": _concept(_REPORT),
            "subject": self._subject,
            "date": _instant(self._content.edition.at),
            "description": "AI result as PDF",
            "content": [{"attachment": _attachment(self._content.pdf, "application/pdf", "AI result")}],
            "context": {"related": [self._reference("report"), self._reference("study")]},
        }

    def _provenance(self) -> Resource:
        content, by = self._content, self._content.edition.by
        role = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
        agents: list[Resource] = [
            {"type": {"coding": [{"system": role, "code": "author"}]}, "who": self._reference("device")},
        ]
        if by:
            agents.append({"type": {"coding": [{"system": role, "code": "verifier"}]}, "who": {"display": by}})
        return {
            "resourceType": "Provenance",
            "meta": {"tag": [{"system": f"{_OWN}:edition", "code": content.control_id}]},
            "target": [self._reference("report"), *([self._reference("document")] if content.pdf else [])],
            "recorded": _instant(content.edition.at),
            "activity": {"text": f"{content.kind.value} report of an AI result"},
            "agent": agents,
            "entity": [{"role": "source", "what": self._reference("study")}],
        }

    def _study_time(self) -> str | None:
        """Study date and time with an offset; the date alone where there is no time; None where there is neither."""
        text = moment(self._content.source.study_date, self._content.source.study_time)
        if len(text) < 8:
            return None
        day = f"{text[:4]}-{text[4:6]}-{text[6:8]}"
        if len(text) < 12:
            return day
        seconds = text[12:14] or "00"
        return _local(datetime.fromisoformat(f"{day}T{text[8:10]}:{text[10:12]}:{seconds}"), self._zone)


def _local(naive: datetime, zone: tzinfo | None) -> str:
    return (naive.replace(tzinfo=zone) if zone else naive.astimezone()).isoformat(timespec="seconds")


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _concept(*codes: Code, text: str = "") -> Resource:
    """One concept in one or several systems; the last is what it is called in words."""
    found = [
        {
            "system": _SYSTEMS.get(code.scheme, f"{_OWN}:codes:{code.scheme}"),
            "code": code.value,
            "display": code.meaning,
        }
        for code in codes
    ]
    return {"coding": found, "text": text or codes[-1].meaning}


def _modality(value: str) -> Resource:
    return {"system": _SYSTEMS["DCM"], "code": value}


def _modality_of(role: str) -> Resource:
    return _modality(_MODALITIES.get(role.split("-")[0], "OT"))


def _attachment(data: bytes, kind: str, name: str) -> Resource:
    digest = base64.b64encode(
        hashlib.sha1(data, usedforsecurity=False).digest()
    ).decode()  # the algorithm that FHIR names
    return {
        "contentType": kind,
        "data": base64.b64encode(data).decode(),
        "size": len(data),
        "hash": digest,
        "title": name,
    }


def _name(group: str) -> Resource:
    family, given, middle, prefix, suffix = (part.strip() for part in (group.split("^") + [""] * 5)[:5])
    found = {
        "family": family or None,
        "given": [part for part in (given, middle) if part] or None,
        "prefix": [prefix] if prefix else None,
        "suffix": [suffix] if suffix else None,
    }
    return _filled(found)


def _filled(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if value not in (None, [], "")}
