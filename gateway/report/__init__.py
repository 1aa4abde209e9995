"""Stage 8: the outcome to the EHR."""
