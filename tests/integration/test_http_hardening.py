"""What the HTTP port does with clients that are slow, silent, too many or too large, and with TLS of every kind."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import requests
from dicomweb_client.api import DICOMwebClient

from gateway.domain.ids import InstanceUID
from gateway.web import server
from tests.support.certificates import Authority, Certificate, make_certificate
from tests.support.node import descriptors
from tests.support.received import SERIES, STUDY
from tests.support.web import BOUNDARY, RELATED, WebSite, image, part10, read, wait, web_site

_GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[WebSite]:
    """One site with HTTPS, whose handshakes must be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_HANDSHAKE_SECONDS", 1.0)
        tls = {"cert_file": certificate.certificate, "key_file": certificate.key}
        with web_site(tmp_path_factory.mktemp("secure"), tls=tls) as made:
            yield made


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSite]:
    """A site with little patience, and room for five."""
    for name, seconds in {"_HEAD_SECONDS": 0.3, "_KEEP_ALIVE": 0.3, "_STUCK_SECONDS": 0.5}.items():
        monkeypatch.setattr(server, name, seconds)
    with web_site(tmp_path, max_connections=5) as made:
        yield made


def connect(site: WebSite) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", site.port))
    raw.settimeout(15)
    return raw


def ended(raw: socket.socket) -> bytes:
    """What is said until the other side hangs up; fails where it does not."""
    heard = bytearray()
    with suppress(ConnectionError):
        while more := raw.recv(65536):
            heard += more
    return bytes(heard)


# --- TLS ---------------------------------------------------------------------------------------------------------------


def test_dicomweb_client_over_https(secure: WebSite, certificate: Certificate) -> None:
    """Stored, found and read back, and every link begins with https."""
    session = requests.Session()
    session.trust_env, session.verify = False, str(certificate.certificate)
    client = DICOMwebClient(secure.dicomweb, session=session)
    client.store_instances([read(part10(image(1)))])
    (study,) = client.search_for_studies()
    assert study["00081190"]["Value"] == [f"{secure.dicomweb}/studies/{STUDY}"]
    assert client.retrieve_instance(STUDY, SERIES, f"{SERIES}.1").Rows == 8


def test_who_does_not_trust_us(secure: WebSite) -> None:
    """A client with other authorities ends the handshake; a name that is not in the certificate, too."""
    for context in (ssl.create_default_context(), ssl.create_default_context(cafile=secure.settings.tls.cert_file)):  # type: ignore[union-attr]
        with connect(secure) as raw, pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(raw, server_hostname="hilum.example")


@pytest.mark.parametrize(
    ("options", "good"),
    [
        (("-tls1_3",), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"), True),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"), False),  # no authenticated encryption
        (("-tls1_2", "-cipher", "AES128-GCM-SHA256"), False),  # no forward secrecy
        (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), False),
        (("-tls1", "-cipher", "ALL:@SECLEVEL=0"), False),
    ],
)
def test_suites_of_bcp_195(secure: WebSite, options: tuple[str, ...], good: bool) -> None:
    """By openssl's own client: TLS 1.2 and 1.3 with the suites of the profile, and nothing else."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.port}", "-quiet", *options]
    asked = _GET + b"Connection: close\r\n\r\n"
    done = subprocess.run(command, input=asked, capture_output=True, timeout=30, check=False)
    assert (b"HTTP/1.1 200" in done.stdout) is good, done.stderr


@pytest.mark.parametrize(
    ("name", "good"), [("ct1", True), (None, False), ("stranger", False), ("expired", False)], ids=str
)
def test_client_certificates(tmp_path: Path, name: str | None, good: bool) -> None:
    """Where the site asks for certificates, one of its authority that is valid today is answered, and nobody else."""
    authority = Authority(tmp_path)
    with web_site(tmp_path, tls=authority.server_settings()) as site:
        with socket.create_connection(("127.0.0.1", site.port), timeout=15) as raw:
            context = authority.client(name)
            with suppress(ssl.SSLError), context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
                wrapped.sendall(_GET + b"Connection: close\r\n\r\n")
                assert (b"HTTP/1.1 200" in ended(wrapped)) is good
                return
        assert not good


def test_without_tls(secure: WebSite) -> None:
    """A plain request on the TLS port gets no answer in the clear, and holds up nobody."""
    with connect(secure) as raw:
        raw.sendall(_GET + b"\r\n")
        assert b"HTTP/" not in ended(raw)
    assert secure.client.get(f"{secure.url}/healthz").status_code == 200


def test_a_handshake_that_never_ends(secure: WebSite) -> None:
    """Silent ones, and one that says a little, are cut; others are served meanwhile."""
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(secure)) for _ in range(20)]
        silent[0].sendall(b"\x16\x03\x01\x02\x00")
        assert secure.client.get(f"{secure.url}/healthz").status_code == 200
        assert [ended(raw) for raw in silent] == [b""] * 20


# --- slow, silent, too many ----------------------------------------------------------------------------------------------


def test_header_fields_that_drip(hasty: WebSite) -> None:
    """A line now and then buys no time."""
    with connect(hasty) as raw:
        raw.sendall(_GET)
        raw.settimeout(0.1)
        deadline = time.monotonic() + 15
        with suppress(ConnectionError):
            while time.monotonic() < deadline:
                raw.sendall(b"X-A: b\r\n")
                with suppress(TimeoutError):
                    assert raw.recv(100) == b""
                    break
        assert time.monotonic() < deadline, "nobody minds"
    assert hasty.client.get(f"{hasty.url}/healthz").status_code == 200


def test_many_silent_connections(hasty: WebSite) -> None:
    """They make room, the oldest first, for one that asks; and no more are kept than the limit says."""
    wait(lambda: hasty.client.get(f"{hasty.url}/healthz").status_code == 200)
    before = descriptors()
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(hasty)) for _ in range(40)]
        assert hasty.client.get(f"{hasty.url}/healthz").status_code == 200
        assert ended(silent[0]) == b""
    wait(lambda: descriptors() <= before + 1)  # the client keeps its own


def test_more_at_work_than_there_is_room_for(tmp_path: Path) -> None:
    """Where everybody is busy, one more is told to come again; nobody at work is thrown out for it."""
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {RELATED}\r\nContent-Length: 1000\r\n\r\n"
    with web_site(tmp_path, max_connections=3, idle_timeout="5s") as site, ExitStack() as stack:
        busy = [stack.enter_context(connect(site)) for _ in range(3)]
        for raw in busy:
            raw.sendall(head.encode() + b"--")
        wait(lambda: len(site.associations()) == 3)
        assert site.client.get("/studies").status_code == 503
        for raw in busy:
            raw.sendall(b"x" * 998)
            assert b" 400 " in raw.recv(4096)


def test_header_fields_without_end(hasty: WebSite) -> None:
    """More than 32 KB of them are a bad request."""
    with connect(hasty) as raw:
        with suppress(ConnectionError):
            raw.sendall(_GET + b"X-A: " + b"b" * 100_000)
        assert ended(raw).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request")
    assert hasty.client.get(f"{hasty.url}/healthz").status_code == 200


def test_a_client_that_does_not_read(hasty: WebSite) -> None:
    """Who asks for much and takes nothing of it is cut, and leaves no descriptor."""
    assert hasty.stow(part10(image(rows=2000, columns=4000))).status_code == 200
    wait(lambda: hasty.client.get("/studies").status_code == 200)
    before = descriptors()
    with connect(hasty) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(f"GET /dicom-web/studies/{STUDY} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait(lambda: descriptors() <= before + 1)  # our own end of it


# --- size ----------------------------------------------------------------------------------------------------------------


def test_memory_is_flat(tmp_path: Path) -> None:
    """An instance of 256 MB comes in while the memory stays what it was, and is there byte by byte."""
    made, piece, count = image(), bytes(1 << 20), 256
    made.PixelData = b""
    head = part10(made)[:-4] + (len(piece) * count).to_bytes(4, "little")
    start = head.index(b"DICM") + 4 + 12 + int.from_bytes(head[140:144], "little")
    digest = hashlib.sha256(head[start:])

    def body() -> Iterator[bytes]:
        yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + head
        for _ in range(count):
            yield piece
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    with web_site(tmp_path, dicom={"durability": "os"}) as site:
        assert site.stow(part10(image(2))).status_code == 200  # whatever is loaded once is loaded
        process, most, over = psutil.Process(), 0, threading.Event()
        before = process.memory_info().rss

        def watch() -> None:
            nonlocal most
            while not over.wait(0.01):
                most = max(most, process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        answer = site.client.post("/studies", content=body(), headers={"Content-Type": RELATED})
        over.set()
        watcher.join()
        assert answer.status_code == 200, answer.text
        assert most - before < 64 << 20
        for _ in range(count):
            digest.update(piece)
        kept = site.ledger.instance(InstanceUID(f"{SERIES}.1"))
        assert kept is not None and kept.sha256 == digest.hexdigest()
