"""DICOMweb on a free port, with a real ledger and spool behind it, and the requests that tests make."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from gateway.receive.receiver import Receiver
from gateway.receive.settings import DicomSettings
from gateway.store.spool import LocalSpool
from gateway.web import server
from gateway.web.access import read_tokens
from gateway.web.app import Parts, make_app
from gateway.web.settings import HttpSettings
from tests.support.ledgers import make_ledger
from tests.support.received import MovedClock, dataset

JSON = {"Accept": "application/dicom+json"}


class WebSite:
    """One web application that listens."""

    def __init__(
        self, directory: Path, *, viewer: Path | None = None, dicom: Mapping[str, Any] | None = None, **http: Any
    ) -> None:
        self.ledger, self.spool = make_ledger(directory), LocalSpool(directory / "spool")
        self.settings = HttpSettings(port=0, **http)
        (directory / "scratch").mkdir()
        receiver = Receiver(self.spool, self.ledger, MovedClock(), DicomSettings(**(dicom or {})))
        app, self._pixels = make_app(
            Parts(
                settings=self.settings,
                archive=self.ledger,
                spool=self.spool,
                receiver=receiver,
                tokens=read_tokens(self.settings.tokens_file),
                scratch=directory / "scratch",
                viewer=viewer or directory / "viewer",
            )
        )
        self._listener = server.listen(self.settings)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if self.settings.tls else 'http'}://127.0.0.1:{self.port}"
        self.dicomweb = f"{self.url}/dicom-web"
        trust = ssl.create_default_context(cafile=self.settings.tls.cert_file) if self.settings.tls else True
        self.client = httpx2.Client(base_url=self.dicomweb, timeout=30, trust_env=False, verify=trust)
        started = threading.Event()
        self._server: list[uvicorn.Server] = []
        self._thread = threading.Thread(target=self._run, args=(app, started), daemon=True)
        self._thread.start()
        assert started.wait(20)

    def _run(self, app: Any, started: threading.Event) -> None:
        def remember(made: uvicorn.Server) -> None:
            self._server.append(made)
            started.set()

        server.run(app, self._listener, self.settings, made=remember)

    def close(self) -> None:
        self.client.close()
        self._server[0].should_exit = True
        self._thread.join(20)
        self._pixels.close()
        self.ledger.close()

    def stow(self, *files: bytes, study: str = "", **headers: str) -> httpx2.Response:
        """A STOW-RS request of Part 10 files."""
        return self.client.post(
            f"/studies/{study}".rstrip("/"), content=related(*files), headers={"Content-Type": RELATED, **headers}
        )

    def get(self, path: str, accept: str | None = None, **parameters: str) -> httpx2.Response:
        """A GET below the root of DICOMweb."""
        return self.client.get(path, params=parameters or None, headers={"Accept": accept} if accept else None)

    def associations(self) -> list[str]:
        """How each request has ended, in their order."""
        from sqlalchemy import select

        from gateway.store import schema

        table = schema.associations
        with self.ledger.engine.connect() as connection:
            return list(connection.execute(select(table.c.how).order_by(table.c.opened_at, table.c.id)).scalars())


@contextmanager
def web_site(directory: Path, **more: Any) -> Iterator[WebSite]:
    """Serves until the end of the block."""
    site = WebSite(directory, **more)
    try:
        yield site
    finally:
        site.close()


BOUNDARY = "tests-boundary"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def related(*files: bytes, boundary: str = BOUNDARY, kind: str = "application/dicom") -> bytes:
    """A multipart/related message."""
    head = f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()


def part10(made: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """A dataset as a file."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    buffer = BytesIO()
    made.save_as(
        buffer, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
    return buffer.getvalue()


def image(number: int = 1, *, rows: int = 8, columns: int = 6, **attributes: object) -> Dataset:
    """A 16 bit image whose values tell its number."""
    import numpy as np

    made = dataset(number, Rows=rows, Columns=columns, InstanceNumber=number, **attributes)
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.PixelData = (np.arange(rows * columns, dtype="<u2") + 1000 * number).tobytes()
    made["PixelData"].VR = "OW"
    return made


def parts(answer: httpx2.Response) -> list[tuple[dict[str, str], bytes]]:
    """Header fields and content of the parts of a multipart answer."""
    kind = answer.headers["Content-Type"]
    boundary = kind.rpartition("boundary=")[2].strip('"').encode()
    found = []
    for piece in answer.content.split(b"--" + boundary)[1:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode().split("\r\n")]
        found.append(({name: value for name, _, value in lines}, content.removesuffix(b"\r\n")))
    return found


def read(content: bytes) -> Dataset:
    """A Part 10 file."""
    return dcmread(BytesIO(content))


def wait(condition: Any, seconds: float = 10.0) -> None:
    """Looks until it is so, and fails when it has not become so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.02)  # between two looks
