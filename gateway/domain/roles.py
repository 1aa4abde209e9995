"""What a result object is for. A role is a plain string; destinations ask for objects by it (`results: [seg, sr]`).

Several objects of a result set may have one role: key slices are images of their own, and so are maps.
"""

from __future__ import annotations

SEG = "seg"  # Segmentation, BINARY
SEG_LABELMAP = "seg-labelmap"  # the same as Label Map Segmentation, RLE; only written where a job is asked for it
SR = "sr"  # report that viewers open
SR_DATA = "sr-data"  # report that programs read: groups on segments
SC = "sc"  # key slices as colour pictures, for viewers that show nothing else
PDF = "pdf"  # report to read or print
KO = "ko"  # key images, and the index of the set
PM = "pm"  # a number for each voxel: probability, uncertainty, saliency

ROLES = (SEG, SEG_LABELMAP, SR, SR_DATA, SC, PDF, KO, PM)

TITLES = {
    SEG: "DICOM Segmentation",
    SEG_LABELMAP: "DICOM Label Map Segmentation",
    SR: "DICOM SR",
    SR_DATA: "DICOM SR with data",
    SC: "DICOM Secondary Capture",
    PDF: "Encapsulated PDF",
    KO: "DICOM Key Object Selection",
    PM: "DICOM Parametric Map",
}
"""Role -> words for people."""
