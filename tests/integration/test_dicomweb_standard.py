"""Requests that PS3.18 allows and few clients make: parameters, resources and methods besides the usual ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from tests.support.received import SERIES, STUDY
from tests.support.web import BOUNDARY, RELATED, WebSite, image, part10, parts, web_site

_CT = "1.2.826.3"
_INSTANCE = f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """A study with an MR series of two slices and a CT series of one."""
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
    study = {"ReferringPhysicianName": "House^Gregory", "StudyTime": "1030"}
    step = {"PerformedProcedureStepStartDate": "20240229", "RequestAttributesSequence": [request]}
    with web_site(tmp_path_factory.mktemp("web")) as made:
        slices = [image(number, **study, **step) for number in (1, 2)]
        other = image(3, **study, Modality="CT", SeriesInstanceUID=_CT, SOPInstanceUID=f"{_CT}.1")
        assert made.stow(*(part10(one) for one in (*slices, other))).status_code == 200
        yield made


def _found(site: WebSite, path: str, query: str, tag: str) -> list[str]:
    answer = site.client.get(f"{path}?{query}")
    assert answer.status_code == 200, answer.text
    return sorted(row[tag]["Value"][0] for row in answer.json())


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("ReferringPhysicianName=house*", True),
        ("ReferringPhysicianName=HOUSE^GREGORY", True),
        ("ReferringPhysicianName=Wilson*", False),
        ("StudyTime=1030", True),
        ("StudyTime=103000", True),
        ("StudyTime=103000.000", True),
        ("StudyTime=1031", False),
        ("StudyTime=103000-103000", True),
        ("StudyTime=103001-", False),
        (f"StudyInstanceUID=1.2.3&StudyInstanceUID={STUDY}", True),
        ("charset=utf-8", True),
        ("emptyvaluematching=false&multiplevaluematching=false", True),
    ],
)
def test_matching(site: WebSite, query: str, found: bool) -> None:
    """Every person's name without regard to case, times however precisely they are written down, UIDs one by one."""
    assert _found(site, "/studies", query, "0020000D") == ([STUDY] if found else [])


def test_matching_below_the_study(site: WebSite) -> None:
    """The number of an instance is a required key; what a study holds besides does not hide a series; a path is no other study."""
    assert _found(site, f"/studies/{STUDY}/instances", "InstanceNumber=2", "00080018") == [f"{SERIES}.2"]
    assert _found(site, "/instances", "InstanceNumber=1&Modality=MR", "00080018") == [f"{SERIES}.1"]
    assert _found(site, "/series", "ModalitiesInStudy=CT", "0020000E") == sorted([SERIES, _CT])
    assert _found(site, "/series", "Modality=CT", "0020000E") == [_CT]
    assert _found(site, "/instances", "ModalitiesInStudy=CT&Modality=MR", "00080018") == [f"{SERIES}.1", f"{SERIES}.2"]
    assert _found(site, f"/studies/{STUDY}/series", "StudyInstanceUID=1.2.3", "0020000E") == []


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("MÜLLER^JÜRGEN", "MÜLLER*"),
        ("Müller^Jürgen", "mÜLLER^jÜRGEN"),
        ("ИВАНОВ^ИВАН", "ИВАНОВ^ИВАН"),
        ("ИВАНОВ^ИВАН", "Иванов*"),
        ("ΠΑΠΑΔΟΠΟΥΛΟΣ^ΓΙΩΡΓΟΣ", "*ΓΙΩΡΓΟΣ"),
        ("IŞIK^ALİ", "IŞIK^ALİ"),
    ],
)
def test_names_in_other_alphabets(tmp_path: Path, stored: str, asked: str) -> None:
    """Without regard to case in every alphabet that has one: a patient is found by the very name that was sent."""
    with web_site(tmp_path) as made:
        named = image(1, PatientName=stored, SpecificCharacterSet="ISO_IR 192")
        assert made.stow(part10(named)).status_code == 200
        assert len(made.get("/studies", PatientName=asked).json()) == 1


def test_what_a_series_shows(site: WebSite) -> None:
    """The performed step and the request (table 10.6.3-4) out of the file; of an attribute in a sequence the sequence."""
    series = {row["0020000E"]["Value"][0]: row for row in site.get(f"/studies/{STUDY}/series").json()}
    assert series[SERIES]["00400244"] == {"vr": "DA", "Value": ["20240229"]}
    assert series[SERIES]["00400275"]["Value"][0]["00401001"]["Value"] == ["RP1"]
    assert "00400244" not in series[_CT]
    answer = site.get("/studies", includefield="00400275.00400009,RequestAttributesSequence.RequestedProcedureID")
    assert answer.status_code == 200
    refused = site.client.get("/series?RequestAttributesSequence.RequestedProcedureID=RP1")
    assert (refused.status_code, "not supported" in refused.json()["detail"]) == (400, True)


@pytest.mark.parametrize("name", ["fuzzymatching", "emptyvaluematching", "multiplevaluematching"])
def test_matching_that_is_not_done(site: WebSite, name: str) -> None:
    """A Warning says so (8.3.4.2, 8.3.4.5, 8.3.4.6), and the search is done without it."""
    answer = site.get("/studies", **{name: "true"})
    assert len(answer.json()) == 1
    assert f"The {name} parameter is not supported." in answer.headers["warning"]


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        (f"{_INSTANCE}/rendered", "image/png", "image/png"),
        (f"{_INSTANCE}/metadata", "application/json", "application/json"),
        (_INSTANCE, "application/dicom", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"),
        ("/studies", "application/json", "application/json"),
        ("/studies", "text/html", "application/problem+json"),
    ],
)
def test_accept_in_the_query(site: WebSite, path: str, accept: str, kind: str) -> None:
    """It goes before the header field, which a page cannot set for an image (8.3.3.1)."""
    answer = site.client.get(path, params={"accept": accept}, headers={"Accept": "*/*"})
    assert answer.headers["content-type"] == kind


def test_accept_in_several_lines(site: WebSite) -> None:
    """A field that is a list may come in several lines (RFC 9110 5.3)."""
    lines = [("Accept", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.70"), ("Accept", "application/dicom")]
    assert site.client.get(_INSTANCE, headers=lines).headers["content-type"].startswith("application/dicom;")


@pytest.mark.parametrize("path", [f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}", f"{_INSTANCE}/frames/1"])
def test_thumbnails(site: WebSite, path: str) -> None:
    """Of a study, a series and a frame."""
    answer = site.get(f"{path}/thumbnail", "image/png")
    assert (answer.status_code, answer.content[:4]) == (200, b"\x89PNG")


def test_many_pictures(site: WebSite) -> None:
    """A series, a study or some frames, rendered: one part for each, to a client that did not expect it as well."""
    client = DICOMwebClient(site.dicomweb)
    assert client.retrieve_series_rendered(STUDY, SERIES).count(b"JFIF") == 2
    for path, count in ((f"/studies/{STUDY}", 3), (f"{_INSTANCE}/frames/1,1", 2)):
        found = parts(site.get(f"{path}/rendered", 'multipart/related; type="image/png"'))
        assert [(headers["Content-Type"], data[:4]) for headers, data in found] == [("image/png", b"\x89PNG")] * count
    for path, accept, status in (
        (f"/studies/{STUDY}", "image/png", 406),
        ("/studies/1.2.3", "*/*", 404),
        (f"{_INSTANCE}/frames/1,2", "*/*", 404),
        (f"{_INSTANCE}/frames/1,x", "*/*", 400),
    ):
        assert site.get(f"{path}/rendered", accept).status_code == status
    lie = {"StudyInstanceUID": "1.2.826.4", "SeriesInstanceUID": "1.2.826.4.1", "SOPInstanceUID": "1.2.826.4.1.1"}
    assert site.stow(part10(image(**lie, NumberOfFrames=2**31 - 1))).status_code == 200
    assert site.get("/studies/1.2.826.4/rendered").status_code == 413


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/studies", {"GET", "HEAD", "OPTIONS", "POST"}), (f"{_INSTANCE}/metadata", {"GET", "HEAD", "OPTIONS"})],
)
def test_methods(site: WebSite, path: str, methods: set[str]) -> None:
    """OPTIONS tells what a resource has, and so does the refusal of anything else."""
    options, refused = site.client.request("OPTIONS", path), site.client.request("DELETE", path)
    assert (options.status_code, refused.status_code) == (204, 405)
    assert set(options.headers["allow"].split(", ")) == set(refused.headers["allow"].split(", ")) == methods
    assert refused.headers["content-type"] == "application/problem+json"
    assert site.client.head(path).status_code == 200


def test_header_fields_over_several_lines(site: WebSite) -> None:
    """RFC 5322 lets a field go on in the next line, and some libraries fold what is long."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom;\r\n transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n".encode()
    body = head + part10(image(9)) + f"\r\n--{BOUNDARY}--\r\n".encode()
    assert site.client.post("/studies", content=body, headers={"Content-Type": RELATED}).status_code == 200
