"""The last steps of every kind of object: identity, dates, equipment, and one deterministic file."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from gateway.domain.ids import derived_uid
from gateway.domain.messages import ResultObject
from workers.encode.equipment import contributing_equipment
from workers.encode.frames import PER_FRAME
from workers.encode.patient import copy_patient_and_study
from workers.encode.source import Origin

_CODE_STRING = re.compile("[A-Z0-9 _]{1,16}")
_IMPLEMENTATION = UID(derived_uid("hilum", "implementation class"))
_IMPLEMENTATION_NAME = "HILUM"


def finish(dataset: Dataset, source: Origin) -> None:
    """Completes what highdicom has built; after it nothing depends on when or where it was built."""
    date, time = source.moment.strftime("%Y%m%d"), source.moment.strftime("%H%M%S")
    for keyword in ("InstanceCreationDate", "ContentDate", "SeriesDate"):
        setattr(dataset, keyword, date)
    for keyword in ("InstanceCreationTime", "ContentTime", "SeriesTime"):
        setattr(dataset, keyword, time)
    dataset.ContributingEquipmentSequence = [contributing_equipment(source)]
    dataset.file_meta.ImplementationClassUID = _IMPLEMENTATION
    dataset.file_meta.ImplementationVersionName = _IMPLEMENTATION_NAME
    copy_patient_and_study(source.first, dataset)


def copy_body_part(dataset: Dataset, source: Origin) -> None:
    """Body part and laterality of the images (PS3.3 C.7.3.1), for objects whose series are images themselves.

    Laterality is type 2C: empty where neither the images nor their body part tell.
    """
    for keyword in ("BodyPartExamined", "Laterality"):
        value = str(source.first.get(keyword) or "")
        if _CODE_STRING.fullmatch(value):
            setattr(dataset, keyword, value)
    if "BodyPartExamined" not in dataset and "Laterality" not in dataset:
        dataset.Laterality = ""


def write(dataset: Dataset, role: str, file: Path) -> ResultObject:
    """Writes a Part 10 file (PS3.10) and describes it."""
    digest = hashlib.sha256()
    size = 0
    with file.open("wb") as stream:
        for part in _parts(dataset):
            digest.update(part)
            size += stream.write(part)
    return ResultObject(
        role=role,
        file=file.name,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        sha256=digest.hexdigest(),
        size=size,
    )


def _parts(dataset: Dataset) -> Iterator[bytes | memoryview]:
    """The file in pieces. Descriptions of frames are encoded already; pydicom would parse and write each of them anew."""
    buffer = BytesIO()
    if PER_FRAME not in dataset:
        dataset.save_as(buffer, enforce_file_format=True)
        yield buffer.getbuffer()
        return
    before = dataset[:PER_FRAME]
    before.file_meta = dataset.file_meta
    before.save_as(buffer, enforce_file_format=True)
    yield buffer.getbuffer()
    frames = dataset.get_item(PER_FRAME).value
    yield struct.pack("<HH2sHI", PER_FRAME.group, PER_FRAME.element, b"SQ", 0, len(frames)) + frames
    after = DicomBytesIO()
    after.is_little_endian, after.is_implicit_VR = True, False
    write_dataset(after, dataset[PER_FRAME + 1 :], dataset.get("SpecificCharacterSet") or "ISO_IR 6")
    yield after.getvalue()
