"""Stage 5c: the answers of several models about one study into one."""
