"""Stage 5a: the files of one series to a volume with its geometry."""
