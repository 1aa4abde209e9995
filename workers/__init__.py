"""The model processes of Hilum: series to volume, volume through a MONAI bundle, output to DICOM objects, objects through the gate."""
