"""Receiving by STOW-RS: Hilum with its web process beside Orthanc's DICOMweb plugin, the same requests in one run."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from pydicom.uid import XRayAngiographicImageStorage

from tests.benchmarks.receivers import HilumWeb, Orthanc, progress
from tests.benchmarks.watch import Watch
from tests.support.received import dataset
from tests.support.web import part10

_BOUNDARY = "hilum-benchmark"
_STORED, _WARNING = "00081199", "00081196"  # Referenced SOP Sequence, Warning Reason
_PIECE = 1 << 20

RECEIVERS: tuple[type[HilumWeb] | type[Orthanc], ...] = (HilumWeb, Orthanc)


def speed(folder: Path, files: list[Path], megabytes: float, rounds: int) -> None:
    """Prints how fast slices are taken, all in one request, and in four at the same time."""
    for senders in (1, 4):
        print(f"\n**{len(files)} x CT, 512 KB by STOW-RS, {senders} requests at the same time**, best of {rounds}\n")
        print("| receiver | MB/s | instances/s | CPU, s | memory above idle, all processes, MB |")
        print("|---|---|---|---|---|")
        found: dict[str, tuple[float, float, float]] = {}
        for kind in RECEIVERS * rounds:
            progress(f"STOW-RS, {senders} senders, to {kind.name}")
            took = _measured(folder, kind, partial(_send, files, senders))
            found[kind.name] = min(took, found.get(kind.name, took))
        for name, (seconds, cpu, above) in found.items():
            print(
                f"| {name} | {megabytes / seconds:.0f} | {len(files) / seconds:.0f} | {cpu:.2f} | {above:.0f} |",
                flush=True,
            )


def large(folder: Path, megabytes: int) -> None:
    """Prints what one multi-frame of so many MiB costs."""
    print(f"\n**One multi-frame of {megabytes} MB by STOW-RS**\n")
    print("| receiver | MB/s | CPU, s | memory above idle, all processes, MB |")
    print("|---|---|---|---|")
    for kind in RECEIVERS:
        progress(f"a multi-frame of {megabytes} MB by STOW-RS to {kind.name}")
        try:
            seconds, cpu, above = _measured(folder, kind, lambda to: _post(to, 1, _multi_frame(megabytes)))
        except (OSError, AssertionError, http.client.HTTPException) as error:
            print(f"| {kind.name} | not taken: {type(error).__name__} {error} | | |", flush=True)
        else:
            print(f"| {kind.name} | {megabytes * 1.048576 / seconds:.0f} | {cpu:.1f} | {above:.0f} |", flush=True)


def _measured(
    folder: Path, kind: type[HilumWeb] | type[Orthanc], send: Callable[[str], None]
) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, and MB above idle at most."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        receiver = kind(Path(name) / "receiver")
        receiver.start()
        try:
            with Watch(receiver) as watch:
                started = time.perf_counter()
                send(receiver.dicomweb)
                seconds = time.perf_counter() - started
        finally:
            receiver.stop()
    return seconds, watch.cpu, (watch.memory - watch.idle) / 1e6


def _send(files: list[Path], senders: int, dicomweb: str) -> None:
    shares = [files[number::senders] for number in range(senders)]
    with ThreadPoolExecutor(senders) as threads:
        for _ in threads.map(lambda share: _post(dicomweb, len(share), (path.read_bytes() for path in share)), shares):
            pass


def _post(dicomweb: str, count: int, instances: Iterator[bytes]) -> None:
    """One request, chunked, made while it is sent; every instance must be stored. An instance of several pieces is one part."""
    to = urlsplit(dicomweb)
    connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=600)
    kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json", "Transfer-Encoding": "chunked"}
    connection.request("POST", f"{to.path}/studies", _body(instances, whole=count > 1), headers, encode_chunked=True)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status == 200, f"status {answer.status}"
    stored = json.loads(said).get(_STORED, {}).get("Value", [])
    assert len(stored) == count, f"{len(stored)} of {count} stored"


def _body(pieces: Iterator[bytes], *, whole: bool) -> Iterator[bytes]:
    head = f"\r\n--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    for number, piece in enumerate(pieces):
        yield head + piece if whole or number == 0 else piece
    yield f"\r\n--{_BOUNDARY}--\r\n".encode()


def _multi_frame(megabytes: int) -> Iterator[bytes]:
    made = dataset(1, SOPClassUID=XRayAngiographicImageStorage, Rows=1024, Columns=512, NumberOfFrames=megabytes)
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    yield part10(made) + b"\xe0\x7f\x10\0OW\0\0" + (megabytes * _PIECE).to_bytes(4, "little")
    frame = np.random.default_rng(0).bytes(_PIECE)
    for _ in range(megabytes):
        yield frame
