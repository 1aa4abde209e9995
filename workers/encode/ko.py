"""Key images, and the index of the result set, to a Key Object Selection (PS3.3 A.35.4, TID 2010)."""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from gateway.domain.roles import KO
from workers.encode.equipment import general_equipment, long_string
from workers.encode.picture import key_slices
from workers.encode.report import observer
from workers.encode.source import Source

SERIES_NUMBER = 9006


def build_ko(source: Source, results: Sequence[Dataset]) -> KeyObjectSelectionDocument:
    """Refers to the slices where something is to be seen, then to every other object of the set."""
    keys = {str(image.SOPInstanceUID): image for image in map(source.reference_of, key_slices(source))}
    referenced = [*keys.values(), *results]
    equipment = general_equipment(source)
    result = KeyObjectSelectionDocument(
        evidence=referenced,
        content=KeyObjectSelection(
            document_title=codes.DCM.OfInterest,
            referenced_objects=referenced,
            observer_device_context=observer(source),
            description=_description(source),
        ),
        series_instance_uid=source.uid(KO, "series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=source.uid(KO, "instance"),
        instance_number=1,
        manufacturer=equipment["manufacturer"],
    )
    result.ManufacturerModelName = equipment["manufacturer_model_name"]
    result.SoftwareVersions = equipment["software_versions"]
    result.DeviceSerialNumber = equipment["device_serial_number"]
    result.SeriesDescription = long_string(f"AI, not verified: key images, {source.manifest.title}")
    return result


def _description(source: Source) -> str:
    """What is selected, and which selection it replaces."""
    before = [one.sop_instance_uid for one in source.order.predecessors if one.role == KO]
    said = f"AI {source.manifest.title}, not verified: key images and all result objects of one run."
    return f"{said} Replaces {', '.join(before)}." if before else said
