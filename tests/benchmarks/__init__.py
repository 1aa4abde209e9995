"""Performance beside peers in one run, as ratios: `make bench`. Nothing here is a test."""
