"""Results into DCMTK's storescp: another implementation of the same wire."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, MRImageStorage

from gateway.deliver.cstore import CStorePacs
from gateway.deliver.settings import DicomDestination
from gateway.domain.errors import DestinationUnreachable
from gateway.domain.job import Verdict
from tests.support.objects import write_object
from tests.support.orthanc import free_port

pytestmark = pytest.mark.neighbour


@contextmanager
def storescp(directory: Path, *options: str) -> Iterator[CStorePacs]:
    """A running storescp, ready when it answers C-ECHO."""
    program = shutil.which("storescp")
    assert program, "DCMTK is not installed: apt-get install dcmtk"
    directory.mkdir()
    port = free_port()
    process = subprocess.Popen([program, "-od", str(directory), *options, str(port)], stderr=subprocess.DEVNULL)
    destination = DicomDestination(kind="dicom", ae_title="STORESCP", host="127.0.0.1", port=port)
    pacs = CStorePacs(destination, "HILUM")
    try:
        wait_for(pacs)
        yield pacs
    finally:
        process.terminate()
        process.wait(10)


def wait_for(pacs: CStorePacs) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            pacs.echo()
        except DestinationUnreachable:
            assert time.monotonic() < end, "storescp did not start"
            time.sleep(0.05)  # between two questions; the answer ends the wait
        else:
            return


def test_every_object_arrives_with_the_same_values(tmp_path: Path) -> None:
    """SEG, SR and an image of several megabytes over one association; pixels byte for byte."""
    objects = [
        write_object(tmp_path, "seg"),
        write_object(tmp_path, "sr", sop_class=ComprehensiveSRStorage),
        write_object(tmp_path, "mr", sop_class=MRImageStorage, size=4 << 20),
    ]
    with storescp(tmp_path / "out", "--prefer-lossless", "+B") as pacs:
        receipts = pacs.store(objects)
    assert {receipt.verdict for receipt in receipts.values()} == {Verdict.ACCEPTED}
    arrived = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, (tmp_path / "out").iterdir())}
    assert len(arrived) == 3
    for one in objects:
        assert arrived[one.sop_instance_uid] == dcmread(one.path)


def test_implicit_vr_only(tmp_path: Path) -> None:
    """`+xi`: a peer that takes the default transfer syntax alone gets it."""
    one = write_object(tmp_path, "seg")
    with storescp(tmp_path / "out", "+xi") as pacs:
        assert pacs.store([one])[one.sop_instance_uid].verdict is Verdict.ACCEPTED
    (file,) = (tmp_path / "out").iterdir()
    assert dcmread(file).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert dcmread(file).PixelData == dcmread(one.path).PixelData


def test_a_peer_that_aborts_midway_gets_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    """`--abort-after`: DCMTK aborts after the object; it is tried again, never counted as stored."""
    one = write_object(tmp_path, "seg")
    with storescp(tmp_path / "out", "--abort-after") as pacs:
        receipt = pacs.store([one])[one.sop_instance_uid]
    assert receipt.verdict is Verdict.RETRY


def test_refused_association(tmp_path: Path) -> None:
    """`--refuse`: no association, so the object waits or is rejected with DCMTK's own reason."""
    one = write_object(tmp_path, "seg")
    program = shutil.which("storescp")
    assert program
    port = free_port()
    process = subprocess.Popen([program, "--refuse", str(port)], stderr=subprocess.DEVNULL)
    pacs = CStorePacs(DicomDestination(kind="dicom", ae_title="S", host="127.0.0.1", port=port), "HILUM")
    try:
        end = time.monotonic() + 10
        while "cannot connect" in (receipt := pacs.store([one])[one.sop_instance_uid]).answer:
            assert time.monotonic() < end, "storescp did not start"
    finally:
        process.terminate()
        process.wait(10)
    assert receipt.verdict is not Verdict.ACCEPTED
    assert "rejected" in receipt.answer
