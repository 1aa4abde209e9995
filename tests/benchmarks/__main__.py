"""Runs every benchmark and prints its table."""

from __future__ import annotations

from tests.benchmarks import hl7, loading, receive, segmentation

if __name__ == "__main__":
    receive.main()
    hl7.main()
    segmentation.main()
    loading.main()
