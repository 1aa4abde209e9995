"""What the first job of a process would wait for is loaded before there is one."""

from __future__ import annotations

from contextlib import suppress

from highdicom import SOPClass
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from gateway.domain.errors import ServiceUnavailable
from workers.encode.typeset import fonts


def warm_up() -> None:
    """Loads highdicom's tables of the standard (a third of a second), fonts, and formats of pictures."""
    SOPClass(
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        series_number=1,
        sop_instance_uid="2.25.3",
        instance_number=1,
        sop_class_uid=SecondaryCaptureImageStorage,
        modality="OT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    Image.preinit()
    with suppress(ServiceUnavailable):  # said again to whoever wants pages
        fonts()
