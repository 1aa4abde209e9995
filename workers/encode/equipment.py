"""Who made a result: general equipment, and the algorithm as contributing equipment (IHE AIR)."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from workers.encode.codes import PROCESSING_ALGORITHM
from workers.encode.source import Origin


def long_string(text: str) -> str:
    """Text cut and cleaned to what LO can hold (PS3.5 6.2): 64 characters, no backslash, no control character."""
    return "".join(" " if not character.isprintable() or character == "\\" else character for character in text)[
        :64
    ].strip()


def general_equipment(source: Origin) -> dict[str, Any]:
    """General and Enhanced General Equipment modules (PS3.3 C.7.5.1, C.7.5.2) as highdicom's arguments."""
    return {
        "manufacturer": long_string(source.identity.manufacturer),
        "manufacturer_model_name": long_string(source.manifest.device.model_name),
        "software_versions": long_string(source.identity.version),
        "device_serial_number": source.identity.digest[:16] or "0",
    }


def contributing_equipment(source: Origin) -> Dataset:
    """The item of Contributing Equipment Sequence (PS3.3 C.12.1.1.5) that IHE AIR asks of an algorithm.

    Its Device UID changes with each build of the model. highdicom knows neither the purpose nor that attribute.
    """
    item = Dataset()
    item.Manufacturer = long_string(source.identity.manufacturer)
    item.ManufacturerModelName = long_string(source.manifest.device.model_name)
    item.DeviceSerialNumber = source.identity.digest[:16] or "0"
    item.SoftwareVersions = long_string(source.identity.version)
    item.DeviceUID = source.identity.device_uid
    item.ContributionDateTime = source.moment.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = long_string(f"AI model {source.identity.name}, result not verified")
    item.PurposeOfReferenceCodeSequence = [PROCESSING_ALGORITHM]
    return item
