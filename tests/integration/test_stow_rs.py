"""STOW-RS by raw requests: what is stored, what is answered, and what hostile requests come to."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from gateway.domain.ids import InstanceUID
from tests.support.received import SERIES, STUDY, encode
from tests.support.web import BOUNDARY, RELATED, WebSite, image, part10, related, wait, web_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    with web_site(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebSite]:
    """One site for all requests of which nothing is kept."""
    with web_site(tmp_path_factory.mktemp("empty")) as made:
        yield made
        assert made.ledger.list_studies() == []
        assert "released" not in made.associations()


def _head(length: int) -> bytes:
    """A request's header fields, for a body that is yet to come."""
    fields = [
        "POST /dicom-web/studies HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {RELATED}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*fields, "", ""]).encode()


def _reasons(answer) -> list[int]:  # type: ignore[no-untyped-def]
    module = answer.json()
    return [
        item["00081197"]["Value"][0]
        for tag in ("00081198", "0008119A")
        for item in module.get(tag, {}).get("Value", [])
    ]


def test_everything_is_stored_before_it_is_said(site: WebSite) -> None:
    """200, a RetrieveURL for each, the dataset's own bytes in the spool, and an association that was released."""
    sent = {f"{SERIES}.{number}": image(number) for number in (1, 2, 3)}
    answer = site.stow(*(part10(one) for one in sent.values()))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    stored = answer.json()["00081199"]["Value"]
    assert [item["00081155"]["Value"][0] for item in stored] == list(sent)
    for uid, made in sent.items():
        kept = site.ledger.instance(InstanceUID(uid))
        assert kept is not None
        assert kept.sha256 == hashlib.sha256(encode(made)).hexdigest()
        assert site.spool.path(kept.file).read_bytes().endswith(encode(made))
    assert site.client.get(stored[0]["00081190"]["Value"][0]).status_code == 200
    assert site.associations() == ["released"]


def test_a_file_alone(site: WebSite) -> None:
    """application/dicom without multipart is one instance."""
    answer = site.client.post("/studies", content=part10(image()), headers={"Content-Type": "application/dicom"})
    assert answer.status_code == 200
    assert site.ledger.instance(InstanceUID(f"{SERIES}.1")) is not None


def test_a_large_part_streams(site: WebSite) -> None:
    """An instance far larger than any buffer is in the spool byte for byte, and the scratch folder stays empty."""
    made = image(rows=3000, columns=4000)
    assert site.stow(part10(made)).status_code == 200
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept is not None and kept.sha256 == hashlib.sha256(encode(made)).hexdigest()


def test_some_and_none(site: WebSite) -> None:
    """One of another study and one that is no DICOM: 202 with their reasons; only such ones: 409. Nothing is evidence."""
    good, other = part10(image(1)), part10(image(2, StudyInstanceUID="1.2.3.4"))
    answer = site.stow(good, other, b"no DICOM", study=STUDY)
    assert answer.status_code == 202
    assert _reasons(answer) == [0xA900, 0xC000]
    assert "2 of 3" in answer.headers["warning"]
    assert site.stow(other, study=STUDY).status_code == 409
    assert site.ledger.instance(InstanceUID(f"{SERIES}.2")) is None
    assert site.associations() == ["aborted", "aborted"]


def test_the_same_again_and_another_content(site: WebSite) -> None:
    """The same instance again is stored; another content under its UID is a duplicate (0x0111), and the first is kept."""
    assert site.stow(part10(image())).status_code == 200
    assert site.stow(part10(image())).status_code == 200
    answer = site.stow(part10(image(PatientComments="other")))
    assert (answer.status_code, _reasons(answer)) == (409, [0x0111])


def test_a_full_disk(tmp_path: Path) -> None:
    """0xA700 for each, and when to come again."""
    with web_site(tmp_path, dicom={"refuse_all_below": 1.0}) as site:
        answer = site.stow(part10(image()))
        assert (answer.status_code, _reasons(answer)) == (409, [0xA700])
        assert answer.headers["retry-after"]


def test_gzip(site: WebSite) -> None:
    """A packed request is unpacked; other packings are refused."""
    body = gzip.compress(related(part10(image())))
    answer = site.client.post("/studies", content=body, headers={"Content-Type": RELATED, "Content-Encoding": "gzip"})
    assert answer.status_code == 200
    answer = site.client.post("/studies", content=body, headers={"Content-Type": RELATED, "Content-Encoding": "br"})
    assert answer.status_code == 415


def test_gzip_of_several_members(site: WebSite) -> None:
    """RFC 1952 2.2: members follow each other, and all of them are the file; what follows them and is none is no gzip."""
    whole = part10(image())
    cut = len(whole) // 2
    headers = {"Content-Type": "application/dicom", "Content-Encoding": "gzip"}
    members = gzip.compress(whole[:cut]) + gzip.compress(b"") + gzip.compress(whole[cut:])
    assert site.client.post("/studies", content=members, headers=headers).status_code == 200
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept
    assert site.spool.path(kept.file).read_bytes().endswith(image().PixelData)
    for wrong in (members[:-20], members + b"more", gzip.compress(whole) + gzip.compress(whole)[:9]):
        assert site.client.post("/studies", content=wrong, headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("kind", "accept", "status"),
    [
        ("text/html", "*/*", 415),
        ("multipart/form-data; boundary=x", "*/*", 415),
        ("multipart/related; type=application/dicom+xml; boundary=x", "*/*", 415),
        ('multipart/related; type="application/dicom"', "*/*", 400),
        (f'multipart/related; type="application/dicom"; boundary={"x" * 201}', "*/*", 400),
        ("", "*/*", 415),
        (RELATED, "application/dicom+xml", 406),
        (RELATED, "text/html, application/json;q=0", 406),
    ],
)
def test_requests_that_are_not_taken(empty: WebSite, kind: str, accept: str, status: int) -> None:
    """Each with its status and a problem document."""
    answer = empty.client.post(
        "/studies", content=related(part10(image())), headers={"Content-Type": kind, "Accept": accept}
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert empty.ledger.list_studies() == []


@pytest.mark.parametrize("body", [b"", b"--other\r\n\r\nx\r\n--other--\r\n", related(), bytes(200_000)])
def test_messages_that_are_none(empty: WebSite, body: bytes) -> None:
    """400, and nothing is left."""
    assert empty.client.post("/studies", content=body, headers={"Content-Type": RELATED}).status_code == 400
    assert empty.associations()[-1:] in ([], ["aborted"])


def test_cut_off_after_one(site: WebSite) -> None:
    """Without its closing boundary a request is bad; what came whole before is stored, the cut-off one is not."""
    body = related(part10(image(1)), part10(image(2)))
    answer = site.client.post("/studies", content=body[: -len(BOUNDARY) - 20], headers={"Content-Type": RELATED})
    assert answer.status_code == 400
    assert site.ledger.instance(InstanceUID(f"{SERIES}.1")) is not None
    assert site.ledger.instance(InstanceUID(f"{SERIES}.2")) is None
    assert list((site.spool._temporary).iterdir()) == []
    assert site.associations() == ["aborted"]


def test_a_client_that_goes_away(site: WebSite) -> None:
    """A connection lost in the middle of an instance leaves nothing, and ends the association."""
    body = related(part10(image(1)), part10(image(2)))
    with socket.create_connection(("127.0.0.1", site.port)) as line:
        head = _head(len(body))
        line.sendall(head + body[: len(body) * 3 // 4])
        wait(lambda: site.ledger.instance(InstanceUID(f"{SERIES}.1")))
    wait(lambda: site.associations() == ["aborted"])
    assert list((site.spool._temporary).iterdir()) == []


def test_a_hundred_thousand_parts(tmp_path: Path) -> None:
    """Refused with 413 at the limit."""
    with web_site(tmp_path, max_parts=50) as site:
        body = b"".join(f"--{BOUNDARY}\r\n\r\nx\r\n".encode() for _ in range(100_000)) + f"--{BOUNDARY}--".encode()
        answer = site.client.post("/studies", content=body, headers={"Content-Type": RELATED})
        assert answer.status_code == 413
        assert "http.max_parts" in answer.json()["detail"]


def test_bombs(tmp_path: Path) -> None:
    """A length beyond the limit is refused at once, a gzip bomb when it has unpacked so far."""
    with web_site(tmp_path, max_request_mib=1) as site:
        with socket.create_connection(("127.0.0.1", site.port)) as line:
            head = _head(4294967296)
            line.sendall(head)
            assert b" 413 " in line.recv(4096)
        packer = zlib.compressobj(9, wbits=31)
        bomb = packer.compress(f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        bomb += packer.compress(bytes(64 << 20)) + packer.flush()
        assert len(bomb) < 100_000
        headers = {"Content-Type": RELATED, "Content-Encoding": "gzip"}
        assert site.client.post("/studies", content=bomb, headers=headers).status_code == 413
        nothing = (gzip.compress(b"") * 4096 for _ in range(20))  # more than a MiB of members that hold nothing
        assert site.client.post("/studies", content=nothing, headers=headers).status_code == 413
        assert site.ledger.list_studies() == []


def test_slow_clients(tmp_path: Path) -> None:
    """Who stops in the middle of a body is told so; others are served meanwhile."""
    with web_site(tmp_path, idle_timeout="0.3s") as site, socket.create_connection(("127.0.0.1", site.port)) as line:
        head = _head(1000)
        line.sendall(head + b"--")
        assert site.stow(part10(image())).status_code == 200
        line.settimeout(10)
        assert b" 408 " in line.recv(4096)


def test_what_a_page_elsewhere_makes_a_browser_do(site: WebSite) -> None:
    """A write from another site, and another name for this machine, are refused."""
    assert site.stow(part10(image()), **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert site.client.get("/studies", headers={"Host": "evil.example"}).status_code == 421


def test_paths_and_names_from_the_wire(site: WebSite) -> None:
    """A UID that is a path is refused and makes no file; a preamble that is a program does not come back."""
    assert site.stow(part10(image()), study="..%2f..%2fetc").status_code in (400, 404)
    evil = b"MZ" + part10(image())[2:]
    assert site.stow(evil).status_code == 200
    back = site.get(f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1", "application/dicom")
    assert back.content[:128] == bytes(128)
    assert back.headers["x-content-type-options"] == "nosniff"


def _metadata(made, frames: str) -> dict[str, object]:  # type: ignore[no-untyped-def]
    item = made.to_json_dict()
    item["7FE00010"] = {"vr": "OW", "BulkDataURI": frames}
    return item  # type: ignore[no-any-return]


def _with_bulk(items: list[dict[str, object]], *bulk: tuple[str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom+json\r\n\r\n".encode()
    body = head + json.dumps(items).encode() + b"\r\n"
    for kind, place, content in bulk:
        body += (
            f"--{BOUNDARY}\r\nContent-Type: {kind}\r\nContent-Location: {place}\r\n\r\n".encode() + content + b"\r\n"
        )
    kind = f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'
    return body + f"--{BOUNDARY}--".encode(), {"Content-Type": kind}


def test_metadata_with_bulk_data(site: WebSite) -> None:
    """DICOM JSON and its pixels make an instance; compressed pixels keep the transfer syntax of their part."""
    plain, packed = image(1), image(2)
    body, headers = _with_bulk(
        [_metadata(plain, "a"), _metadata(packed, "b")],
        ("application/octet-stream", "a", plain.PixelData),
        (f"image/jp2; transfer-syntax={JPEG2000Lossless}", "b", b"\xff\x4f\xff\x51not really\xff\xd9"),
    )
    answer = site.client.post("/studies", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    first, second = (site.ledger.instance(InstanceUID(f"{SERIES}.{number}")) for number in (1, 2))
    assert first and second
    assert site.spool.path(first.file).read_bytes().endswith(plain.PixelData)
    assert second.header.transfer_syntax_uid == JPEG2000Lossless


@pytest.mark.parametrize("declared", [None, "", "ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 87"])
def test_names_of_metadata(site: WebSite, declared: str | None) -> None:
    """JSON is in UTF-8, whatever Specific Character Set it repeats: every name comes back as it was sent, nested ones too."""
    name, reader = "Иванов^Иван=山田^太郎", "Müller^Jürgen"
    item = image(1, PatientName=name).to_json_dict()
    item["00401101"] = {"vr": "SQ", "Value": [{"00104000": {"vr": "LT", "Value": [reader]}}]}
    if declared is not None:
        item["00080005"] = {"vr": "CS", "Value": [declared] if declared else []}
        item["00401101"]["Value"][0]["00080005"] = {"vr": "CS", "Value": [declared]}  # type: ignore[index]
    body, headers = _with_bulk([item])
    assert site.client.post("/studies", content=body, headers=headers).status_code == 200
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept
    stored = dcmread(site.spool.path(kept.file))
    assert (str(stored.PatientName), stored.SpecificCharacterSet) == (name, "ISO_IR 192")
    assert stored.PersonIdentificationCodeSequence[0].PatientComments == reader
    assert kept.header.patient.name == name


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        ("", "Müller^Jürgen"),
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 144", "Иванов^Иван"),
        ("GB18030", "王^小东"),
        ("ISO_IR 100", "Doe^Jane"),
    ],
)
def test_character_sets_of_metadata(site: WebSite, declared: str, name: str) -> None:
    """The source's character set is kept where there is one that has every character (PS3.18 F.2.2 note 3)."""
    item = image(1, PatientName=name).to_json_dict()
    if declared:
        item["00080005"] = {"vr": "CS", "Value": [declared]}
    body, headers = _with_bulk([item])
    assert site.client.post("/studies", content=body, headers=headers).status_code == 200
    kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
    assert kept
    stored = dcmread(site.spool.path(kept.file))
    assert (str(stored.PatientName), stored.SpecificCharacterSet) == (name, declared or "ISO_IR 192")


def test_bulk_data_is_never_fetched(site: WebSite) -> None:
    """A URI that is not in the request makes the instance fail; nobody is asked for it."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        uri = f"http://127.0.0.1:{trap.getsockname()[1]}/x"
        body, headers = _with_bulk([_metadata(image(1), uri)])
        answer = site.client.post("/studies", content=body, headers=headers)
        assert (answer.status_code, _reasons(answer)) == (409, [0xC000])
        with pytest.raises(TimeoutError):
            trap.accept()


@pytest.mark.parametrize("text", [b"{", b"[1]", b"[]", b"[" * 100_000, b'[{"00080018": 5}]'])
def test_metadata_that_is_none(empty: WebSite, text: bytes) -> None:
    """400 for what is no list of datasets, 409 for a dataset that is none."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom+json\r\n\r\n".encode()
    kind = f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'
    body = head + text + f"\r\n--{BOUNDARY}--".encode()
    assert empty.client.post("/studies", content=body, headers={"Content-Type": kind}).status_code in (400, 409)
