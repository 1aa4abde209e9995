"""Damaged files by the hundred, by C-STORE and by STOW-RS: the right answer to each, what is kept is byte-identical."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.domain.ids import InstanceUID
from gateway.receive.settings import DicomSettings
from tests.support.corpus import (
    BROKEN_OFF,
    CANNOT_UNDERSTAND,
    DUPLICATE,
    STORED,
    Hostile,
    expected,
    files_of_pydicom,
    store,
)
from tests.support.hostile import cases
from tests.support.node import Site, associations, dataset_digest, descriptors, wait
from tests.support.web import WebSite, web_site

pytestmark = [pytest.mark.filterwarnings("ignore")]  # pydicom speaks its mind about texts of no character set

RECEIVING = {"durability": "os", "max_inflated": 32 << 20}
_DAMAGED_PIXELS = ("pixels", "representations/0028", "ends", "MR_truncated", "rtplan_truncated", "badVR", "JPEG")
CORPORA = {"our own": cases, "pydicom's": files_of_pydicom}


@contextmanager
def nothing_left(site: Site | WebSite) -> Iterator[None]:
    """No thread, descriptor or temporary file more than before."""
    before = descriptors()
    yield
    wait(lambda: not associations())
    wait(lambda: descriptors() <= before)
    assert list(site.spool._temporary.iterdir()) == []
    assert all(study["open_associations"] == 0 for study in site.ledger.list_studies(10_000))


def judge(site: Site | WebSite, answers: Iterable[tuple[Hostile, int]], right: Callable[[Hostile], set[int]]) -> None:
    """Every answer is right; what was acknowledged is there byte by byte, and of the rest there is nothing."""
    kept: dict[str, str] = {}
    second: set[str] = set()  # other content under a UID that was there: kept apart
    wrong = []
    for file, status in answers:
        if status not in right(file):
            wrong.append((file.name, status))
        if status == STORED:
            kept.setdefault(file.item.sop_instance_uid, file.sha256)
        if status == DUPLICATE:
            second.add(file.sha256)
    assert wrong == []
    assert len(kept) > 100
    instances = [
        item for study in site.ledger.list_studies(10_000) for item in site.ledger.study(study["uid"]).instances
    ]
    assert {item.header.sop_instance_uid: item.sha256 for item in instances} == kept
    assert all(dataset_digest(site.spool.path(item.file)) == item.sha256 for item in instances)
    files = [path for path in site.spool._objects.rglob("*") if path.is_file()]
    assert len(files) == len(kept) + len(second)
    assert all(path.read_bytes()[:128] == bytes(128) for path in files), "no preamble of a program comes in"


@pytest.mark.parametrize("corpus", CORPORA)
def test_by_c_store(tmp_path: Path, corpus: str) -> None:
    """As the dataset of a C-STORE-RQ, each over an association of its own."""
    site = Site(tmp_path, DicomSettings.model_validate({"port": 0, **RECEIVING}))
    with nothing_left(site):
        judge(site, [(file, store(site.port, file)) for file in CORPORA[corpus]()], expected)
    site.close()


@pytest.mark.parametrize("corpus", CORPORA)
def test_by_stow_rs(tmp_path: Path, corpus: str) -> None:
    """As a file; and all that is stored can be asked for, whatever is wrong with it: an answer, never an error of ours."""
    with web_site(tmp_path, dicom=RECEIVING) as site:
        wait(lambda: site.client.get("/studies").status_code == 200)
        with nothing_left(site):
            answers = [(file, _stow(site, file)) for file in CORPORA[corpus]()]
            judge(site, answers, _expected_of_a_file)
        for file, status in answers:
            if status == STORED and file.name.startswith(_DAMAGED_PIXELS):
                _look(site, file)
        metadata = [site.get(f"/studies/{study['uid']}/metadata") for study in site.ledger.list_studies(10_000)]
        assert {answer.status_code for answer in metadata} == {200}
        stored = {file.item.sop_instance_uid for file, status in answers if status == STORED}
        assert {item["00080018"]["Value"][0] for answer in metadata for item in answer.json()} == stored


def _stow(site: WebSite, file: Hostile) -> int:
    answer = site.client.post("/studies", content=file.data, headers={"Content-Type": "application/dicom"})
    assert answer.status_code in (200, 409), file.name
    if answer.status_code == 200:
        return STORED
    (failure,) = [item for tag in ("00081198", "0008119A") for item in answer.json().get(tag, {}).get("Value", [])]
    return int(failure["00081197"]["Value"][0])


def _expected_of_a_file(file: Hostile) -> set[int]:
    if file.data[128:132] != b"DICM" or b"\2\0\x10\0" not in file.data[132:1000]:
        return {CANNOT_UNDERSTAND}
    return expected(file) - {BROKEN_OFF}


def _look(site: WebSite, file: Hostile) -> None:
    header = site.ledger.instance(InstanceUID(file.item.sop_instance_uid)).header
    url = f"/studies/{header.study_uid}/series/{header.series_uid}/instances/{header.sop_instance_uid}"
    for what, accept in (("/frames/1", "*/*"), ("/rendered", "image/png")):
        answer = site.client.get(url + what, headers={"Accept": accept})
        assert answer.status_code in (200, 404, 406), (file.name, what, answer.text)
        assert answer.headers["x-content-type-options"] == "nosniff"
