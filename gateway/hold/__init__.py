"""Stage 2: Instances to a complete Study, released by evidence."""
