"""Stage 7: result objects to the PACS."""
