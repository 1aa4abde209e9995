"""Hilum's DICOMweb with dicomweb-client, a real client: stored, found, and retrieved in every form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from requests.exceptions import HTTPError

from tests.support.received import SERIES, STUDY
from tests.support.web import WebSite, image, part10, read, web_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """Two studies: three slices of one patient, and one image each in four other transfer syntaxes of another."""
    with web_site(tmp_path_factory.mktemp("web")) as made:
        client = DICOMwebClient(made.dicomweb)
        client.store_instances([read(part10(image(n, **_DOE))) for n in (1, 2, 3)])
        assert made.stow(*(part10(*_encoded(number)) for number in range(1, 6))).status_code == 200
        yield made


@pytest.fixture
def client(site: WebSite) -> DICOMwebClient:
    return DICOMwebClient(site.dicomweb)


_DOE = {
    "PatientName": "Doe^Jane=葉^小明",
    "SpecificCharacterSet": "ISO_IR 192",
    "StudyDate": "20240229",
    "StudyTime": "103005.25",
    "AccessionNumber": "A-1",
    "StudyDescription": "Head MR",
    "SeriesNumber": "7",
    "SeriesDescription": "T1 ax",
    "BodyPartExamined": "HEAD",
}
_SIZE = {"rows": 64, "columns": 48}
_OTHER, _OTHER_SERIES = "1.2.826.2", "1.2.826.2.1"
_SYNTAXES = [ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless, ExplicitVRBigEndian]


def _encoded(number: int):  # type: ignore[no-untyped-def]
    syntax = _SYNTAXES[number - 1]
    made = image(
        number, **_SIZE, PatientName="Roe^Richard", PatientID="P2", StudyDate="20230101", Modality="CT", AccessionNumber="B_2",
        StudyInstanceUID=_OTHER, SeriesInstanceUID=_OTHER_SERIES, SOPInstanceUID=f"{_OTHER_SERIES}.{number}",
    )  # fmt: skip
    if syntax.is_compressed:
        made = read(part10(made))
        made.compress(syntax, generate_instance_uid=False)
    elif not syntax.is_little_endian:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    return made, syntax


def _studies(client: DICOMwebClient, **filters: str) -> list[str]:
    return [row["0020000D"]["Value"][0] for row in client.search_for_studies(search_filters=filters)]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [STUDY, _OTHER]),  # newest first
        ({"PatientName": "doe*"}, [STUDY]),
        ({"PatientName": "Doe^Jane"}, [STUDY]),
        ({"PatientName": "葉*"}, [STUDY]),
        ({"PatientName": "D?e^Jane"}, [STUDY]),
        ({"PatientName": "Jane"}, []),
        ({"PatientID": "P*"}, [STUDY, _OTHER]),
        ({"PatientID": "p1"}, []),
        ({"AccessionNumber": "B_2"}, [_OTHER]),
        ({"AccessionNumber": "A_*"}, []),
        ({"AccessionNumber": "[A]*"}, []),
        ({"StudyDate": "20240101-20241231"}, [STUDY]),
        ({"StudyDate": "-20231231"}, [_OTHER]),
        ({"StudyDate": "20240229-"}, [STUDY]),
        ({"StudyDate": "20240229"}, [STUDY]),
        ({"StudyTime": "1000-103005"}, [STUDY]),
        ({"ModalitiesInStudy": "CT"}, [_OTHER]),
        ({"ModalitiesInStudy": r"CT\MR"}, [STUDY, _OTHER]),
        ({"StudyInstanceUID": f"{STUDY},{_OTHER}"}, [STUDY, _OTHER]),
        ({"00100020": "P2"}, [_OTHER]),
        ({"StudyDescription": "* MR"}, [STUDY]),
        ({"PatientID": "' OR '1'='1"}, []),
        ({"PatientID": "%"}, []),
    ],
)
def test_studies_are_found(client: DICOMwebClient, filters: dict[str, str], found: list[str]) -> None:
    """Single values, wildcards, ranges, lists, names in any script and case; what looks like SQL is text."""
    assert _studies(client, **filters) == found


def test_what_a_study_shows(client: DICOMwebClient) -> None:
    """Counts, modalities and what else was asked for, out of the file where the index has it not."""
    [row] = client.search_for_studies(search_filters={"PatientID": "P1"}, fields=["Manufacturer", "ImageType"])
    assert row["00201206"]["Value"] == [1] and row["00201208"]["Value"] == [3]
    assert row["00080061"]["Value"] == ["MR"]
    assert row["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane", "Ideographic": "葉^小明"}]
    assert row["00080008"]["Value"] == ["ORIGINAL", "PRIMARY", "OTHER"]
    assert row["00080070"] == {"vr": "LO"}


def test_series_and_instances(site: WebSite, client: DICOMwebClient) -> None:
    """At every level, inside a study or over all of them."""
    [series] = client.search_for_series(STUDY)
    assert (series["0020000E"]["Value"], series["00200011"]["Value"], series["00201209"]["Value"]) == (
        [SERIES],
        [7],
        [3],
    )
    assert len(client.search_for_series()) == 2
    assert client.search_for_series(search_filters={"Modality": "CT"})[0]["0020000D"]["Value"] == [_OTHER]
    instances = client.search_for_instances(STUDY, SERIES)
    assert [row["00200013"]["Value"][0] for row in instances] == [1, 2, 3]
    assert len(client.search_for_instances()) == 8
    assert len(client.search_for_instances(search_filters={"PatientID": "P1"})) == 3
    one = client.search_for_instances(STUDY, search_filters={"SOPInstanceUID": f"{SERIES}.2"})
    assert [row["00080018"]["Value"][0] for row in one] == [f"{SERIES}.2"]
    everything = site.get(f"/studies/{STUDY}/series/{SERIES}/instances", includefield="all").json()[0]
    assert {"00200032", "00280030"} <= set(everything)


def test_pages(site: WebSite) -> None:
    """limit and offset, with a word about the rest; a limit of 10^9 is not one."""
    first = site.get("/studies", limit="1")
    assert len(first.json()) == 1
    assert "There are 1 additional results" in first.headers["warning"]
    second = site.get("/studies", limit="1", offset="1")
    assert second.json()[0]["0020000D"] != first.json()[0]["0020000D"]
    assert "warning" not in second.headers
    assert "limit" in site.get("/studies", limit="1000000000").headers["warning"]
    assert "fuzzymatching" in site.get("/studies", fuzzymatching="true").headers["warning"]
    assert site.get("/studies", offset="99").json() == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=x", "offset=1.5", "StudyDate=2024", "StudyDate=today", "StudyDate=20240101-x", "Nonsense=1",
        "00100020%27=1", "includefield=Nonsense", "StudyInstanceUID=../..", "InstitutionName=x", "PatientID=" + "x" * 1025,
        "PatientName=" + "*a" * 9, "Modality=CT",
    ],
)  # fmt: skip
def test_bad_queries(site: WebSite, query: str) -> None:
    """400 with what is wrong; nothing is quietly left out."""
    answer = site.client.get(f"/studies?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_whole_instances(client: DICOMwebClient) -> None:
    """A study, a series and an instance come back as they were sent."""
    assert len(client.retrieve_study(STUDY)) == 3
    found = client.retrieve_series(STUDY, SERIES)
    assert [one.PixelData for one in sorted(found, key=lambda one: one.InstanceNumber)] == [
        image(number).PixelData for number in (1, 2, 3)
    ]
    assert client.retrieve_instance(STUDY, SERIES, f"{SERIES}.2") == read(part10(image(2, **_DOE)))


def test_metadata(client: DICOMwebClient) -> None:
    """Every attribute as DICOM JSON; pixels by URI, which gives them."""
    rows = client.retrieve_series_metadata(STUDY, SERIES)
    assert [row["00200013"]["Value"] for row in rows] == [[1], [2], [3]]
    [pixels] = client.retrieve_bulkdata(rows[1]["7FE00010"]["BulkDataURI"])
    assert pixels == image(2).PixelData


@pytest.mark.parametrize("number", range(1, 6))
def test_every_transfer_syntax(site: WebSite, client: DICOMwebClient, number: int) -> None:
    """Instances and frames as stored, and in Explicit VR Little Endian, have the pixels that were sent."""
    uids, expected = (_OTHER, _OTHER_SERIES, f"{_OTHER_SERIES}.{number}"), image(number, **_SIZE).PixelData
    path = f"/studies/{uids[0]}/series/{uids[1]}/instances/{uids[2]}"
    stored = site.get(path, "application/dicom; transfer-syntax=*")
    assert read(stored.content).file_meta.TransferSyntaxUID == _SYNTAXES[number - 1]
    plain = read(site.get(path, "application/dicom").content)
    assert plain.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert plain.PixelData == expected and plain.SOPInstanceUID == uids[2]
    [frame] = client.retrieve_instance_frames(*uids, [1], media_types=("application/octet-stream",))
    assert frame == expected
    as_it_is = site.get(f"{path}/frames/1", 'multipart/related; type="application/octet-stream"; transfer-syntax=*')
    assert as_it_is.status_code == 200
    rendered = client.retrieve_instance_rendered(*uids, media_types=("image/png",))
    assert rendered.startswith(b"\x89PNG")


def test_precise_refusals(site: WebSite) -> None:
    """400, 404, 406 and 410, each where it belongs."""
    instance = f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"
    for path, accept, status in [
        ("/studies/1.2.3.4", None, 404),
        (f"/studies/{STUDY}/series/1.2.3", None, 404),
        (f"/studies/{STUDY}/series/{SERIES}/instances/1.2.3", None, 404),
        ("/studies/a.b", None, 400),
        (f"{instance}/frames/2", None, 404),
        (f"{instance}/frames/0", None, 400),
        (f"{instance}/frames/1,x", None, 400),
        (f"{instance}/frames/1", "image/jp2", 406),
        (f"{instance}/frames/1", 'multipart/related; type="image/jpeg"', 406),
        (instance, "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90", 406),
        (instance, "text/html", 406),
        (f"{instance}/metadata", "application/dicom+xml", 406),
        (f"{instance}/rendered", "image/gif", 406),
        (f"{instance}/rendered?window=1", None, 400),
        (f"{instance}/bulkdata/00100010", None, 404),
        (f"{instance}/bulkdata/x/../y", None, 404),
    ]:
        answer = site.get(path, accept)
        assert (path, accept, answer.status_code) == (path, accept, status)
        assert answer.headers["content-type"] == "application/problem+json"
    assert site.client.delete(f"/studies/{STUDY}").status_code == 405


def test_a_file_that_has_gone(tmp_path: Path) -> None:
    """410: the ledger knows it, and the file is no more."""
    with web_site(tmp_path) as site:
        site.stow(part10(image()))
        held = site.ledger.held(STUDY)[0]
        site.spool.path(held.file).unlink()
        assert site.get(f"/studies/{STUDY}").status_code == 410
        assert site.get(f"/studies/{STUDY}/metadata").status_code == 200


def test_unchanged(site: WebSite) -> None:
    """The same content has the same ETag, and is not sent again to who has it."""
    instance = f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"
    for path in (instance, f"{instance}/metadata", f"{instance}/frames/1", f"{instance}/rendered"):
        tag = site.get(path).headers["etag"]
        again = site.client.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert site.get(instance).headers["cache-control"] == "no-store"
    assert site.get(f"{instance}/frames/1").headers["cache-control"] == "private, no-cache"


def test_tokens(tmp_path: Path) -> None:
    """Without a token 401 with a challenge; with it, as bearer or password, its name is the sender's."""
    token = "0123456789" * 2
    (tmp_path / "tokens").write_text(f"# who\nVIEWER {token}\n")
    with web_site(tmp_path, tokens_file=tmp_path / "tokens") as site:
        with pytest.raises(HTTPError):
            DICOMwebClient(site.dicomweb).search_for_studies()
        denied = site.client.post("/studies", headers={"Authorization": "Bearer " + "x" * 20})
        assert denied.status_code == 401 and "Bearer" in denied.headers["www-authenticate"]
        answer = site.stow(part10(image()), Authorization=f"Bearer {token}")
        assert answer.status_code == 200
        assert site.ledger.held(STUDY)
        assert site.client.get("/studies", auth=("anybody", token)).status_code == 200
        kept = site.ledger.instance(f"{SERIES}.1")  # type: ignore[arg-type]
        assert kept is not None and kept.calling_ae == "VIEWER"
