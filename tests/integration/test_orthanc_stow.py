"""Orthanc's DICOMweb plugin as a sender by STOW-RS, and as a reader of what Hilum holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx2

from gateway.domain.ids import InstanceUID
from tests.support.orthanc import running_orthanc
from tests.support.received import SERIES, STUDY, encode
from tests.support.web import image, part10, web_site


def test_orthanc_sends_and_fetches(tmp_path: Path) -> None:
    """A study that Orthanc sends is held byte for byte; one that Hilum holds comes back into an empty Orthanc."""
    with web_site(tmp_path) as site:
        servers = {"DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"hilum": [f"{site.dicomweb}/"]}}}
        with running_orthanc(tmp_path / "orthanc", servers) as orthanc, httpx2.Client(base_url=orthanc.url) as rest:
            made = [image(number) for number in (1, 2, 3)]
            parents = {rest.post("/instances", content=part10(one)).json()["ParentStudy"] for one in made}
            sent = rest.post("/dicom-web/servers/hilum/stow", json={"Resources": list(parents)}, timeout=60)
            assert sent.status_code == 200, sent.text
            for number, one in enumerate(made, 1):
                kept = site.ledger.instance(InstanceUID(f"{SERIES}.{number}"))
                assert kept is not None and kept.sha256 == hashlib.sha256(encode(one)).hexdigest()
            assert set(site.associations()) == {"released"}
            for parent in parents:
                rest.delete(f"/studies/{parent}")
            wanted = {"Resources": [{"Study": STUDY}], "Synchronous": True}
            fetched = rest.post("/dicom-web/servers/hilum/retrieve", json=wanted, timeout=60)
            assert fetched.status_code == 200, fetched.text
            assert len(rest.get("/instances").json()) == 3
