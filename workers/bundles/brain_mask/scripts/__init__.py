"""The bundle's own code, found by MONAI when the bundle's directory is on the import path."""
