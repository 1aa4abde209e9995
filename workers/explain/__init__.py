"""Stage 5c: how sure a model is, and why it says what it says."""
