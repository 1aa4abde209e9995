"""What can be said of images that were refused: whose they are, where that is beyond doubt."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.domain.messages import JobOrder
from workers.load.part10 import BROKEN

_ONE_OF_EACH = ("PatientID", "IssuerOfPatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID")
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def readable_headers(order: JobOrder) -> tuple[Dataset, ...]:
    """The headers of the order's images, each instance once, without those that cannot be read.

    Nothing at all where they are not of one patient, study and series: nobody could say about whom a report would be.
    """
    found: dict[str, Dataset] = {}
    for file in order.inputs:
        try:
            header = dcmread(Path(file.path), stop_before_pixels=True)
            whole = all(str(header[keyword].value) for keyword in _NEEDED)
        except BROKEN:
            continue
        if whole and str(header.SOPInstanceUID).rstrip("\0 ") == file.sop_instance_uid:
            found[file.sop_instance_uid] = header
    headers = tuple(found.values())
    same = all(len({_text(header, keyword) for header in headers}) == 1 for keyword in _ONE_OF_EACH)
    return headers if headers and same else ()


def _text(header: Dataset, keyword: str) -> str:
    try:
        return str(header.get(keyword) or "").strip()
    except BROKEN:
        return ""
