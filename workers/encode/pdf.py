"""The report on paper as Encapsulated PDF (PS3.3 A.45.1): for archives and systems that show documents."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from gateway.domain.messages import MeasurementResult
from gateway.domain.roles import PDF
from workers.encode import typeset
from workers.encode.codes import REPORT, concept_item
from workers.encode.equipment import long_string
from workers.encode.heatmap import NOT_A_FINDING, explanations, heat_pictures
from workers.encode.listing import table
from workers.encode.picture import Picture, draw, key_slices, srgb
from workers.encode.plain import begin
from workers.encode.source import Source
from workers.encode.words import caption, confidence, date, names, text, unit, value

SERIES_NUMBER = 9005
_PICTURES = 3
_SIZE = 640  # pixels of a picture's longer side


def build_pdf(source: Source) -> Dataset:
    """Patient, key slices, all measurements, what a reader must know, intended use, and how it was made."""
    document, pictures = _document(source)
    timestamp = int(source.order.content_time)
    data = typeset.pdf("report", document, pictures, timestamp)
    description = f"AI, not verified: report, {source.manifest.title}"
    result = begin(source, PDF, EncapsulatedPDFStorage, "DOC", SERIES_NUMBER, description)
    result.ConversionType = "WSD"
    result.BurnedInAnnotation = "YES"
    result.AcquisitionDateTime = None
    result.DocumentTitle = long_string(f"AI, not verified: {source.manifest.title}")
    result.VerificationFlag = "UNVERIFIED"
    result.ConceptNameCodeSequence = [concept_item(REPORT)]
    result.SourceInstanceSequence = [_reference(image) for image in source.images]
    result.MIMETypeOfEncapsulatedDocument = "application/pdf"
    result.EncapsulatedDocumentLength = len(data)
    result.EncapsulatedDocument = data + b"\0" * (len(data) % 2)
    return result


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _document(source: Source) -> tuple[dict[str, Any], dict[str, bytes]]:
    title = source.manifest.title
    shown, files = _pictures(source)
    data = {
        "title": title,
        "author": source.identity.manufacturer,
        "subtitle": f"Computed by {source.identity.name} {source.identity.version} on {source.moment:%Y-%m-%d %H:%M}",
        "footer": f"{title}: AI, not verified. Job {source.order.job_id}",
        "patient": _patient(source.volume.first),
        "study": _study(source.volume.first),
        "pictures": shown,
        "findings": table(source),
        "rows": _rows(source),
        "remarks": list(source.remarks),
        "intended_use": source.manifest.intended_use.strip(),
        "facts": _facts(source),
    }
    return data, files


def _patient(header: Dataset) -> dict[str, Any]:
    found = names(header) or ["Name unknown"]
    issuer = text(header, "IssuerOfPatientID")
    identifier = text(header, "PatientID")
    return {
        "name": found[0],
        "others": found[1:],
        "id": f"{identifier} ({issuer})" if issuer else identifier,
        "born": date(text(header, "PatientBirthDate")),
        "sex": text(header, "PatientSex"),
    }


def _study(header: Dataset) -> dict[str, str]:
    modality, description = text(header, "Modality"), text(header, "StudyDescription")
    referrer = text(header, "ReferringPhysicianName").replace("^", " ").strip()
    return {
        "accession": text(header, "AccessionNumber"),
        "date": date(text(header, "StudyDate")),
        "description": ": ".join(part for part in (modality, description) if part),
        "referrer": referrer.split("=")[0].strip(),
    }


def _pictures(source: Source) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    shown, files = [], {}
    for number, (picture, remark) in enumerate(_drawn(source), start=1):
        buffer = io.BytesIO()
        Image.fromarray(picture.pixels).save(buffer, "PNG", compress_level=1)
        files[f"slice-{number}.png"] = buffer.getvalue()
        sides = {"left": picture.left, "top": picture.top, "right": picture.right, "bottom": picture.bottom}
        marks = [mark.shown() for mark in picture.marks]
        shown.append(
            {
                "file": f"slice-{number}.png",
                "caption": caption(source, picture.slice) + remark,
                "marks": marks,
                "ratio": picture.columns / picture.rows,
                **sides,
            }
        )
    return shown, files


def _drawn(source: Source) -> list[tuple[Picture, str]]:
    """Key slices, and the slice where an explanation is strongest; each with what must be said of it."""
    hot = [
        (picture, f": {NOT_A_FINDING}")
        for found in explanations(source)
        for picture in heat_pictures(source, found, _SIZE, 1)
    ]
    keys = key_slices(source, _PICTURES - len(hot))
    return [*((draw(source, index, _SIZE), "") for index in keys), *hot]


def _rows(source: Source) -> list[dict[str, Any]]:
    """A row for each number; the first of a segment has its name, and how many rows it stands for."""
    rows: list[dict[str, Any]] = []
    last: int | None = 0
    for found in (one for one in source.measurements if one.finding is None):
        spec = source.segments[found.segment - 1] if found.segment else None
        first = found.segment != last
        if first:
            head = len(rows)
        else:
            rows[head]["span"] += 1
        rows.append(
            {
                "label": spec.label if spec is not None and first else "",
                "span": int(first),
                "colour": "#{:02x}{:02x}{:02x}".format(*srgb(spec.cielab)) if spec is not None else "#000000",
                "name": _named(source, found),
                "value": value(found),
                "unit": unit(found) + confidence(found),
            }
        )
        last = found.segment
    return rows


def _named(source: Source, found: MeasurementResult) -> str:
    """With what is said beside the number: present or absent, and of which image."""
    verdict = "".join(f", {code.meaning.lower()}" for code in found.verdict)
    image = f" (most on {caption(source, source.slice_of(found))})" if found.sop_instance_uid else ""
    return f"{found.name.meaning}{verdict}{image}"


def _distances(source: Source) -> str:
    """Between slices, in mm."""
    steps = (
        np.diff(source.volume.levels) * source.volume.spacing[0] if source.volume.places else source.volume.spacing[:1]
    )
    low, high = f"{min(steps):.3g}", f"{max(steps):.3g}"
    return low if low == high else f"{low} to {high}"


def _facts(source: Source) -> list[dict[str, str]]:
    identity, header = source.identity, source.volume.first
    _, rows, columns = source.volume.spacing
    series = " ".join(part for part in (text(header, "SeriesNumber"), text(header, "SeriesDescription")) if part)
    slices, *matrix = source.masks.shape
    facts = {
        "Model": f"{identity.name} {identity.version}, {identity.manufacturer}",
        "Build": f"sha256 {identity.digest[:32]}, device {identity.device_uid}",
        "Series": f"{series or 'without description'} ({source.references[0].SeriesInstanceUID})",
        "Images": f"{len(source.references)} of {slices} slices, {matrix[0]} × {matrix[1]} pixels, "
        f"{_distances(source)} × {rows:.3g} × {columns:.3g} mm",
        "Study": str(source.references[0].StudyInstanceUID),
    }
    return [{"name": name, "value": said} for name, said in facts.items()]
