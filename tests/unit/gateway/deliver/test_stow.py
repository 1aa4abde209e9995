"""STOW-RS against scripted servers: what each answer makes of an object."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pydicom import dcmread

from gateway.deliver.settings import DicomwebDestination
from gateway.deliver.stow import StowPacs
from gateway.domain.errors import DestinationUnreachable
from gateway.domain.job import Verdict
from gateway.domain.ports import ObjectFile
from tests.support.http import Reply, Request, web_server
from tests.support.objects import save, write_object
from tests.support.orthanc import free_port
from tests.support.scp import blackhole


def pacs(url: str, **more: object) -> StowPacs:
    return StowPacs(DicomwebDestination.model_validate({"kind": "dicomweb", "url": url, **more}))


def result(status: int, stored: dict[str, int | None], failed: dict[str, int] | None = None) -> Reply:
    """A Store Instances Response Module."""

    def items(entries: dict[str, int | None], tag: str) -> list[dict[str, object]]:
        return [
            {
                "00081155": {"vr": "UI", "Value": [uid]},
                **({tag: {"vr": "US", "Value": [code]}} if code is not None else {}),
            }
            for uid, code in entries.items()
        ]

    body = {
        "00081199": {"vr": "SQ", "Value": items(stored, "00081196")},
        "00081198": {"vr": "SQ", "Value": items({**(failed or {})}, "00081197")},
    }
    return Reply(status, json.dumps(body).encode())


def part(data: bytes) -> Reply:
    """A WADO-RS answer with one part."""
    body = b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--XX--\r\n"
    return Reply(200, body, 'multipart/related; type="application/dicom"; boundary=XX')


@pytest.fixture
def two(tmp_path: Path) -> list[ObjectFile]:
    return [write_object(tmp_path, name) for name in ("a", "b")]


def test_all_files_go_unchanged_in_one_request(two: list[ObjectFile]) -> None:
    """The body is multipart/related with each file byte for byte, and says how long it is."""
    with web_server(lambda _request: result(200, {one.sop_instance_uid: None for one in two})) as web:
        receipts = pacs(f"{web.url}/").store(two)
    assert [receipt.verdict for receipt in receipts.values()] == [Verdict.ACCEPTED] * 2
    (request,) = web.requests
    assert (request.method, request.path) == ("POST", "/dicom-web/studies")
    kind = request.headers["Content-Type"]
    assert kind.startswith('multipart/related; type="application/dicom"; boundary=')
    mark = b"--" + kind.rsplit("=", 1)[1].encode()
    parts = request.body.split(mark)[1:-1]
    sent = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in parts]
    assert sent == [one.path.read_bytes() for one in two]


def test_only_what_failed_is_tried_again(two: list[ObjectFile]) -> None:
    """202: each object has its own reason."""
    a, b = (one.sop_instance_uid for one in two)
    answer = result(202, {a: 0xB000}, {b: 0xA700})
    with web_server(lambda request: answer if request.method == "POST" else Reply(405)) as web:
        receipts = pacs(web.url).store(two)
    assert receipts[a].verdict is Verdict.ACCEPTED
    assert "warning" in receipts[a].answer
    assert receipts[b].verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (0xA700, Verdict.RETRY),
        (0x0110, Verdict.RETRY),
        (0xA900, Verdict.REJECTED),
        (0xC122, Verdict.REJECTED),
        (0x0122, Verdict.UNSUPPORTED),
    ],
)
def test_failure_reasons_are_those_of_c_store(two: list[ObjectFile], reason: int, verdict: Verdict) -> None:
    """409 with a failure reason for the object."""
    uid = two[0].sop_instance_uid
    with web_server(lambda _request: result(409, {}, {uid: reason})) as web:
        receipt = pacs(web.url).store(two[:1])[uid]
    assert receipt.verdict is verdict
    assert f"0x{reason:04X}" in receipt.answer


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (301, Verdict.REJECTED),
        (400, Verdict.REJECTED),
        (401, Verdict.RETRY),
        (403, Verdict.REJECTED),
        (404, Verdict.RETRY),
        (409, Verdict.REJECTED),
        (413, Verdict.REJECTED),
        (415, Verdict.REJECTED),
        (429, Verdict.RETRY),
        (500, Verdict.RETRY),
        (503, Verdict.RETRY),
        (507, Verdict.RETRY),
        (0, Verdict.RETRY),
    ],
)
def test_each_refusal_has_its_verdict(two: list[ObjectFile], status: int, verdict: Verdict) -> None:
    """An answer without a word about the object; 0 is a connection that breaks. Redirects are not followed."""
    reply = Reply(status, b"<html>", "text/html", {"Location": "/elsewhere"})
    with web_server(lambda _request: reply) as web:
        receipt = pacs(web.url).store(two[:1])[two[0].sop_instance_uid]
    assert receipt.verdict is verdict
    assert len(web.requests) == 1


def test_refused_request_is_repeated_object_by_object(two: list[ObjectFile]) -> None:
    """One object that makes the server refuse the whole request does not take the other with it."""
    a, b = (one.sop_instance_uid for one in two)

    def answer(request: Request) -> Reply:
        return Reply(400) if a.encode() in request.body else result(200, {b: None})

    with web_server(answer) as web:
        receipts = pacs(web.url).store(two)
    assert (receipts[a].verdict, receipts[b].verdict) == (Verdict.REJECTED, Verdict.ACCEPTED)


@pytest.mark.parametrize(
    "body", [b"", b"<html>please sign in</html>", b"[" * 100_000, b'{"00081199": 7}', b"null", b"{}"]
)
def test_success_that_does_not_name_the_object_is_not_believed(two: list[ObjectFile], body: bytes) -> None:
    """A 200 from a login page stores nothing."""
    with web_server(lambda request: Reply(200, body) if request.method == "POST" else Reply(404)) as web:
        receipt = pacs(web.url).store(two[:1])[two[0].sop_instance_uid]
    assert receipt.verdict is Verdict.RETRY
    assert "not there" in receipt.answer


def test_success_without_a_word_is_believed_when_the_object_is_there(two: list[ObjectFile]) -> None:
    """An empty 200, and WADO-RS returns the object."""
    one = two[0]
    with web_server(lambda request: Reply(200) if request.method == "POST" else part(one.path.read_bytes())) as web:
        receipt = pacs(web.url).store([one])[one.sop_instance_uid]
    assert receipt.verdict is Verdict.ACCEPTED
    dataset = dcmread(one.path)
    assert web.requests[1].path == (
        f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{one.sop_instance_uid}"
    )


@pytest.mark.parametrize("reason", [0x0111, 45070])
def test_duplicate_is_accepted_only_with_the_same_content(tmp_path: Path, reason: int) -> None:
    """What is already there must be what would have been sent."""
    one = write_object(tmp_path, "mine")
    other = write_object(tmp_path, "other", change={"SOPInstanceUID": one.sop_instance_uid, "PixelData": bytes(512)})
    for there, verdict in ((one, Verdict.ACCEPTED), (other, Verdict.REJECTED)):
        reply = part(there.path.read_bytes())
        refusal = result(409, {}, {one.sop_instance_uid: reason})
        with web_server(lambda request, r=reply, f=refusal: f if request.method == "POST" else r) as web:
            assert pacs(web.url).store([one])[one.sop_instance_uid].verdict is verdict


def test_readback_allows_what_an_archive_may_change(tmp_path: Path) -> None:
    """Patient and study attributes may be coerced; what makes the result may not."""
    one = write_object(tmp_path, "seg")
    coerced = dcmread(one.path)
    coerced.PatientID, coerced.PatientName, coerced.StudyDescription = "P1-NEW", "Doe^Janet", "corrected"
    coerced.private_block(0x0099, "ARCHIVE", create=True).add_new(1, "LO", "stored")
    save(coerced, tmp_path / "coerced", "1.2.840.10008.1.2")
    moved = dcmread(one.path)
    moved.Rows, moved.Columns = moved.Columns, moved.Rows
    save(moved, tmp_path / "moved")
    for file, verdict in (("coerced", Verdict.ACCEPTED), ("moved", Verdict.REJECTED)):
        reply = part((tmp_path / file).read_bytes())
        with web_server(lambda request, r=reply: r) as web:
            receipt = pacs(web.url).read_back([one])[one.sop_instance_uid]
        assert receipt.verdict is verdict, file


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (Reply(404), Verdict.MISSING),
        (Reply(410), Verdict.MISSING),
        (Reply(500), Verdict.RETRY),
        (Reply(200, b"junk"), Verdict.RETRY),
        (part(b"junk"), Verdict.RETRY),
        (Reply(0), Verdict.RETRY),
    ],
)
def test_readback_that_does_not_succeed(two: list[ObjectFile], reply: Reply, verdict: Verdict) -> None:
    """Missing is sent again; failing, unreadable and broken are asked for again."""
    uid = two[0].sop_instance_uid
    with web_server(lambda _request: reply) as web:
        assert pacs(web.url).read_back(two[:1])[uid].verdict is verdict


@pytest.mark.parametrize(
    ("status", "found", "verdict"),
    [
        (200, "mine", Verdict.ACCEPTED),
        (200, "other", Verdict.REJECTED),
        (200, "", Verdict.MISSING),
        (204, "", Verdict.MISSING),
        (501, "", Verdict.UNSUPPORTED),
    ],
)
def test_without_wado_the_object_is_searched_for(
    two: list[ObjectFile], status: int, found: str, verdict: Verdict
) -> None:
    """501 to WADO-RS: QIDO-RS must name the instance, with its class."""
    one = two[0]
    classes = {"mine": one.sop_class_uid, "other": "1.2.3"}
    match = [
        {"00080018": {"vr": "UI", "Value": [one.sop_instance_uid]}, "00080016": {"vr": "UI", "Value": [classes[found]]}}
    ] if found else []  # fmt: skip
    answer = Reply(status, json.dumps(match).encode() if status == 200 else b"")
    with web_server(lambda request: Reply(501) if "/series/" in request.path else answer) as web:
        assert pacs(web.url).read_back([one])[one.sop_instance_uid].verdict is verdict


@pytest.mark.parametrize("same", [True, False])
def test_stored_with_a_warning_is_compared(tmp_path: Path, same: bool) -> None:
    """A warning may mean anything: what is there counts."""
    one = write_object(tmp_path, "mine")
    other = write_object(tmp_path, "other", change={"SOPInstanceUID": one.sop_instance_uid, "PixelData": bytes(512)})
    reply = part((one if same else other).path.read_bytes())
    stored = result(202, {one.sop_instance_uid: 0xB000})
    with web_server(lambda request: stored if request.method == "POST" else reply) as web:
        receipt = pacs(web.url).store([one])[one.sop_instance_uid]
    assert receipt.verdict is (Verdict.ACCEPTED if same else Verdict.REJECTED)
    assert receipt.answer.startswith("0xB000")


def test_endless_answer_is_cut_off(two: list[ObjectFile]) -> None:
    """Two megabytes are no answer to a STOW request."""
    with web_server(lambda _request: Reply(200, b" " * (2 << 20))) as web:
        receipt = pacs(web.url).store(two[:1])[two[0].sop_instance_uid]
    assert receipt.verdict is Verdict.RETRY
    assert "too large" in receipt.answer


def test_nobody_there_and_nobody_answering(two: list[ObjectFile]) -> None:
    """A refused connection and a silent port both end, and the objects wait."""
    refused = pacs(f"http://127.0.0.1:{free_port()}/dicom-web").store(two)
    with blackhole() as port:
        started = time.monotonic()
        silent = pacs(f"http://127.0.0.1:{port}/dicom-web", timeout="300ms").store(two)
        assert time.monotonic() - started < 5
    assert {receipt.verdict for receipt in (*refused.values(), *silent.values())} == {Verdict.RETRY}


def test_credentials_come_from_files_read_each_time(tmp_path: Path, two: list[ObjectFile]) -> None:
    """A token that is changed is used at once; a file that is missing makes the objects wait and names the key."""
    token = tmp_path / "token"
    token.write_text("first\n")
    uid = two[0].sop_instance_uid
    with web_server(lambda _request: result(200, {uid: None})) as web:
        client = pacs(web.url, token_file=str(token))
        client.store(two[:1])
        token.write_text("second\n")
        client.store(two[:1])
        token.unlink()
        receipt = client.store(two[:1])[uid]
        token.write_text("word")
        pacs(web.url, user="me", password_file=str(token)).store(two[:1])
    seen = [request.headers["Authorization"] for request in web.requests]
    assert seen == ["Bearer first", "Bearer second", "Basic bWU6d29yZA=="]
    assert receipt.verdict is Verdict.RETRY
    assert "token_file" in receipt.answer


def test_a_file_that_is_gone_waits_alone(tmp_path: Path, two: list[ObjectFile]) -> None:
    """The others are sent."""
    gone = ObjectFile(sop_class_uid="1.2", sop_instance_uid="1.2.3", path=tmp_path / "gone")
    with web_server(lambda _request: result(200, {two[0].sop_instance_uid: None})) as web:
        receipts = pacs(web.url).store([gone, two[0]])
    assert [receipt.verdict for receipt in receipts.values()] == [Verdict.RETRY, Verdict.ACCEPTED]


def test_echo_asks_for_one_study() -> None:
    """Any success of QIDO-RS is an answer; anything else is not."""
    with web_server(lambda _request: Reply(204)) as web:
        assert "204" in pacs(web.url).echo()
    assert web.requests[0].path == "/dicom-web/studies?limit=1"
    with web_server(lambda _request: Reply(401)) as web, pytest.raises(DestinationUnreachable, match="401"):
        pacs(web.url).echo()
