"""Stage 3: a Study to Jobs, or to none with the reason why."""
