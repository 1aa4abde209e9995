"""The beginning of an object that highdicom does not build."""

from __future__ import annotations

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from workers.encode.equipment import general_equipment, long_string
from workers.encode.source import Source


def begin(
    source: Source, role: str, sop_class: str, modality: str, series_number: int, description: str, number: int = 1
) -> Dataset:
    """SOP Common, series and equipment of the ``number``-th instance of a role."""
    result = Dataset()
    result.file_meta = FileMetaDataset()
    instance = (role, "instance") if number == 1 else (role, "instance", str(number))
    result.SOPClassUID, result.SOPInstanceUID = UID(sop_class), UID(source.uid(*instance))
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.Modality = modality
    result.SeriesInstanceUID = source.uid(role, "series")
    result.SeriesNumber, result.InstanceNumber = series_number, number
    result.SeriesDescription = long_string(description)
    equipment = general_equipment(source)
    result.Manufacturer = equipment["manufacturer"]
    result.ManufacturerModelName = equipment["manufacturer_model_name"]
    result.SoftwareVersions = equipment["software_versions"]
    result.DeviceSerialNumber = equipment["device_serial_number"]
    return result
