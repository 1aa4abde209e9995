"""What a result object is for. A role is a plain string; destinations ask for objects by it (`results: [seg, sr]`).

Several objects of a result set may have one role: key slices are images of their own, and so are maps. This is the one list:
settings, plan, workers and pages read it here.
"""

from __future__ import annotations

SEG = "seg"  # Segmentation, BINARY
SEG_LABELMAP = "seg-labelmap"  # the same as Label Map Segmentation, RLE; only written where a job is asked for it
SEG_ALL_FRAMES = "seg-all-frames"  # BINARY with a frame for every image, painted or not; only where asked for
SR = "sr"  # report that viewers open
SR_STRICT = "sr-strict"  # the same in TID 1410 and 1411 to the letter; only where asked for
SR_DATA = "sr-data"  # report that programs read: groups on segments
SR_COMPREHENSIVE = "sr-comprehensive"  # `sr` as Comprehensive SR, not 3D; only where asked for
SR_DATA_COMPREHENSIVE = "sr-data-comprehensive"  # `sr-data` likewise
SC = "sc"  # key slices as colour pictures, for viewers that show nothing else
PDF = "pdf"  # report to read or print
KO = "ko"  # key images, and the index of the set
PM = "pm"  # a number for each voxel: probability, uncertainty, saliency

ROLES = (
    SEG, SEG_LABELMAP, SEG_ALL_FRAMES, SR, SR_STRICT, SR_DATA, SR_COMPREHENSIVE, SR_DATA_COMPREHENSIVE, SC, PDF, KO, PM,
)  # fmt: skip

USUAL = (SEG, SR, SR_DATA, PM, SC, PDF, KO)
"""What every job writes, as far as its model gives it; each costs little beside the segmentation."""

USUAL_FORM = {
    SEG_LABELMAP: SEG,
    SEG_ALL_FRAMES: SEG,
    SR_STRICT: SR,
    SR_COMPREHENSIVE: SR,
    SR_DATA_COMPREHENSIVE: SR_DATA,
}
"""Other forms of an object, written only for a job whose destinations may need them -> the form that is there anyway."""

TITLES = {
    SEG: "DICOM Segmentation",
    SEG_LABELMAP: "DICOM Label Map Segmentation",
    SEG_ALL_FRAMES: "DICOM Segmentation with every frame",
    SR: "DICOM SR",
    SR_STRICT: "DICOM SR, strict templates",
    SR_DATA: "DICOM SR with data",
    SR_COMPREHENSIVE: "DICOM Comprehensive SR",
    SR_DATA_COMPREHENSIVE: "DICOM Comprehensive SR with data",
    SC: "DICOM Secondary Capture",
    PDF: "Encapsulated PDF",
    KO: "DICOM Key Object Selection",
    PM: "DICOM Parametric Map",
}
"""Role -> words for people."""

REJECTION = "rejection"
"""A rejection note (IHE RAD IOCM) about objects that were delivered: made by the gateway, never by a model."""

MESSAGE = "oru"
"""The message about a job."""

WITHDRAWAL = "oru-withdrawal"
"""The message that takes a result back."""

NOTICES = frozenset({REJECTION, WITHDRAWAL})
"""What says that a result is withdrawn; it goes out when nothing else of the job does any more."""
