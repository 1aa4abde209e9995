"""Stage 6a: arrays and measurements to DICOM objects, one file per kind of object."""
