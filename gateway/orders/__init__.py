"""From the EHR: orders, patient updates, merges and reports as context for studies."""
