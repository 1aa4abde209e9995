"""Stage 5b: a volume through a MONAI bundle."""
