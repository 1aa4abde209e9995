"""The model processes of Hilum: series to volume, through a MONAI bundle, to DICOM objects, through the gate."""
