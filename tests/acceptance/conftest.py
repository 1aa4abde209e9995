"""Neighbours for the whole way: a real Orthanc and an HL7 receiver, and sites that deliver to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.commands.orthanc import DemoOrthanc
from gateway.deliver.orthanc import OrthancAdmin
from gateway.testing import FakeEhr
from tests.support.bundles import write_bundle
from tests.support.neighbours import Neighbours
from tests.support.site import Site

MakeSite = Callable[..., Site]


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[Neighbours]:
    """An Orthanc and an EHR of one's own."""
    orthanc = DemoOrthanc(tmp_path / "orthanc", 1)
    with FakeEhr() as ehr:
        orthanc.start()
        try:
            yield Neighbours(orthanc=orthanc, ehr=ehr, admin=OrthancAdmin(orthanc.url))
        finally:
            orthanc.stop()


@pytest.fixture
def make_site(tmp_path: Path, neighbours: Neighbours) -> Iterator[MakeSite]:
    """Starts sites whose one rule runs a bundle of a given behaviour on every MR and delivers to both neighbours."""
    with ExitStack() as stack:

        def make(behaviour: str = "threshold", **changes: Any) -> Site:
            bundle = write_bundle(tmp_path / f"bundle-{behaviour}", behaviour=behaviour)
            configuration = neighbours.configuration(str(bundle)) | changes
            return stack.enter_context(Site(tmp_path / "site", configuration))

        yield make
