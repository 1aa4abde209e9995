"""Pictures, documents and the index: are they whole, of these images, marked as unverified, and do they name the patient only
where they may?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from workers.verify.evidence import Evidence, Result, code_of, elements, referenced

_OF_INTEREST = ("113000", "DCM")
_TEXT = {"LO", "LT", "SH", "ST", "UC", "UT"}
_IDENTITY_GROUP, _TRIAL_GROUP = 0x0010, 0x0012
_STUDY = {"AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName"}  # copied, and judged elsewhere
_WORD = re.compile(r"\w+")
_CODED = {"CodeValue", "LongCodeValue", "CodeMeaning", "CodingSchemeDesignator", "DimensionDescriptionLabel"}
_OURS = {
    "ai", "not", "verified", "by", "a", "physician", "result", "results", "report", "key", "images", "slices",
    "volumes", "data", "only", "measurements", "found",
}  # fmt: skip
_SHORTEST_ID = 5  # a shorter one may be a word or a number by chance
_SHORT_NAME = 6  # letters of both parts together


def check_picture(result: Result, evidence: Evidence) -> None:
    """An RGB image with all its pixels, of one image of the input, that says it is no image to measure on."""
    dataset = result.dataset
    form = tuple(
        dataset.get(k) for k in ("PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "BitsStored")
    )
    if form != ("RGB", 3, 8, 8) or dataset.get("Modality") != "OT":
        raise result.refuse("form", "it is not an RGB picture of 8 bits")
    size = 3 * (dataset.get("Rows") or 0) * (dataset.get("Columns") or 0)
    if not size or len(dataset.get("PixelData") or b"") != size + size % 2:
        raise result.refuse("pixels", "pixel data has not the length that its rows and columns need")
    sources = list(dataset.get("SourceImageSequence") or ())
    if len(sources) != 1 or evidence.slice_at(sources[0]) is None:
        raise result.refuse("no_source", "it does not name exactly one image of the input")
    if dataset.get("BurnedInAnnotation") != "NO" or "PixelSpacing" in dataset:
        raise result.refuse("annotation", "it claims to name the patient, or to be measurable")
    _check_said(result, "DerivationDescription")


def check_document(result: Result, evidence: Evidence) -> None:
    """A PDF from its first byte to its last, of exactly the images of the input, unverified (PS3.3 C.24.2)."""
    dataset = result.dataset
    data = bytes(dataset.get("EncapsulatedDocument") or b"")
    length = dataset.get("EncapsulatedDocumentLength") or 0
    if dataset.get("MIMETypeOfEncapsulatedDocument") != "application/pdf" or dataset.get("Modality") != "DOC":
        raise result.refuse("form", "it is not declared as a PDF document")
    whole = data[:5] == b"%PDF-" and data[:length].rstrip().endswith(b"%%EOF")
    if not whole or len(data) - length not in (0, 1) or data[length:].strip(b"\0"):
        raise result.refuse("document", "the document is not a whole PDF")
    if dataset.get("VerificationFlag") != "UNVERIFIED" or dataset.get("BurnedInAnnotation") != "YES":
        raise result.refuse("status", "it is not marked unverified, or not as naming the patient")
    named = {str(item.get("ReferencedSOPInstanceUID")) for item in dataset.get("SourceInstanceSequence") or ()}
    if named != set(evidence.class_of):
        raise result.refuse("no_source", "its source instances are not the images of the input")
    _check_said(result, "DocumentTitle")


def check_index(result: Result, evidence: Evidence, siblings: dict[str, str]) -> None:
    """A selection "of interest" of images of the input, and of every other object of the set (TID 2010)."""
    dataset = result.dataset
    if dataset.get("Modality") != "KO" or code_of(dataset, "ConceptNameCodeSequence") != _OF_INTEREST:
        raise result.refuse("template", "it is not a key object selection of interest")
    named = {instance for item in dataset.get("ContentSequence") or () for _, instance in referenced(item)}
    if not set(siblings) <= named:
        raise result.refuse("index", "an object of the result set is not in it")
    if not named & set(evidence.class_of):
        raise result.refuse("index", "no image of the input is in it")


def check_no_patient_text(result: Result, evidence: Evidence) -> None:
    """Descriptions, labels and comments are about the result. Whose it is stands in the patient's own attributes.

    Codes, and what is copied from the images to the letter, are judged elsewhere. A patient whose name or ID is what the
    manifest itself says (a phantom, a collection) cannot be told from it.
    """
    image = evidence.volume.first
    identifier, *name = _identity(image)
    own = _words(" ".join(_strings(evidence.manifest.model_dump()))) | _OURS
    named = bool(all(name)) and not own >= set(name)
    numbered = len(identifier) >= _SHORTEST_ID and not identifier.isalpha() and not own >= _words(identifier)
    for element in elements(result.dataset, _TEXT):
        if element.tag.group == _IDENTITY_GROUP or element.keyword in _CODED or _is_copied(element, result, image):
            continue
        said = str(element.value or "").casefold()
        if (named and _names(said, name)) or (numbered and re.search(rf"(?<!\w){re.escape(identifier)}(?!\w)", said)):
            raise result.refuse("patient_text", f"{element.keyword} holds the patient's name or ID")


def _is_copied(element: DataElement, result: Result, image: Dataset) -> bool:
    """Whether study or trial of the images say the same in the same place."""
    here = element.tag.group == _TRIAL_GROUP and element is result.dataset.get(element.tag)
    return element.keyword in _STUDY or (here and str(image.get(element.keyword, "")) == str(element.value))


def _names(said: str, name: list[str]) -> bool:
    """Whether both parts of a name are said; of a short one (An, So, To are names too) side by side."""
    words = _WORD.findall(said)
    if len("".join(name)) < _SHORT_NAME:
        return any([one, other] in (name, name[::-1]) for one, other in pairwise(words))
    return set(name) <= set(words)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _identity(header: Dataset) -> tuple[str, str, str]:
    family, given = (*str(header.get("PatientName") or "").split("=")[0].split("^"), "", "")[:2]
    return str(header.get("PatientID") or "").strip().casefold(), family.strip().casefold(), given.strip().casefold()


def _check_said(result: Result, keyword: str) -> None:
    for name in (keyword, "SeriesDescription"):
        if "not verified" not in str(result.dataset.get(name) or ""):
            raise result.refuse("status", f"{name} does not say that it is not verified")
