"""Coded concepts that every result uses, and how the manifest's become highdicom's."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as DicomCode

from gateway.bundle.part import CodeValue
from gateway.domain.messages import Code

ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")  # CID 7162
PROCESSING_ALGORITHM = CodedConcept("1630", "99IHE", "Processing Algorithm")  # IHE RAD AIR 6.5.3
QUALITATIVE_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500 row 12
COMMENT = CodedConcept("121106", "DCM", "Comment")
REPORT = CodedConcept("126000", "DCM", "Imaging Measurement Report")
PERCENT = Code(value="%", scheme="UCUM", meaning="Percent")
PRESENCE = CodedConcept("121052", "DCM", "Presence of property")
QUANTITY = Code(value="246205007", scheme="SCT", meaning="Quantity")
FINDINGS = Code(value="{findings}", scheme="UCUM", meaning="findings")
WIDTH = Code(value="103355008", scheme="SCT", meaning="Width")
HEIGHT = Code(value="121207", scheme="DCM", meaning="Height")
DEPTH = Code(value="131197000", scheme="SCT", meaning="Depth")
MILLIMETER = Code(value="mm", scheme="UCUM", meaning="millimeter")
AREA = Code(value="42798000", scheme="SCT", meaning="Area")
SQUARE_MILLIMETER = Code(value="mm2", scheme="UCUM", meaning="square millimeter")
IMAGE_LIBRARY = CodedConcept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = CodedConcept("126200", "DCM", "Image Library Group")

SOURCE_IMAGE = CodedConcept("260753009", "SCT", "Source")

IMAGING = CodedConcept("363679005", "SCT", "Imaging")
PROCEDURES = {  # what was done, where the images do not say it themselves
    "CT": CodedConcept("77477000", "SCT", "Computed Tomography X-Ray"),
    "MR": CodedConcept("113091000", "SCT", "Magnetic Resonance Imaging"),
    "PT": CodedConcept("82918005", "SCT", "Positron Emission Tomography"),
    "NM": CodedConcept("373205008", "SCT", "Nuclear Medicine imaging"),
    "US": CodedConcept("16310003", "SCT", "Ultrasonography"),
}


def concept(code: Code | CodeValue) -> CodedConcept:
    """A code of the manifest or a message as an item of a code sequence (PS3.3 8.8)."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def concept_item(code: DicomCode | CodedConcept) -> Dataset:
    """A code of the standard as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
