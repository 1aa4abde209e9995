"""A DICOM node with settings of its own, for tests of receiving."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.receive.settings import DicomSettings
from tests.support.node import Make, Site


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts nodes with other settings, and stops them."""
    sites: list[Site] = []

    def start(**settings: object) -> Site:
        directory = tmp_path / f"site{len(sites)}"
        directory.mkdir()
        sites.append(Site(directory, DicomSettings.model_validate({"port": 0, **settings})))
        return sites[-1]

    yield start
    for site in sites:
        site.close()
