"""A real Orthanc on free ports, for the time of a test."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.commands.orthanc import free_port

PLUGINS = Path("/usr/share/orthanc/plugins")
_START_SECONDS = 30.0


@dataclass(frozen=True)
class RunningOrthanc:
    """Where it listens, and what it says."""

    url: str  # REST
    dicom_port: int
    ae_title: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def dicomweb(self) -> str:
        """Root of its DICOMweb services."""
        return f"{self.url}/dicom-web"


@contextmanager
def running_orthanc(directory: Path, configuration: Mapping[str, Any] | None = None) -> Iterator[RunningOrthanc]:
    """Starts Orthanc with a configuration over safe defaults, waits until its REST answers, stops it by its id.

    Ports and directories are always the test's own. Where Orthanc is missing or does not start, that is a failure
    that shows its log.
    """
    program = shutil.which("Orthanc")
    assert program, "Orthanc is not installed: apt-get install orthanc orthanc-dicomweb"
    directory.mkdir(parents=True, exist_ok=True)
    http_port, dicom_port = free_port(), free_port()
    settings = _settings(directory, http_port, dicom_port, configuration or {})
    file, log = directory / "orthanc.json", directory / "orthanc.log"
    file.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--verbose", str(file)], stdout=output, stderr=subprocess.STDOUT, cwd=directory
        )
    orthanc = RunningOrthanc(f"http://127.0.0.1:{http_port}", dicom_port, str(settings["DicomAet"]), log, process)
    try:
        _wait_until_ready(orthanc)
        yield orthanc
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _settings(directory: Path, http_port: int, dicom_port: int, over: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Name": "test",
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "UnknownSopClassAccepted": True,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **over,
        "RemoteAccessAllowed": False,
        "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "StorageDirectory": str(directory / "storage"),
        "IndexDirectory": str(directory / "index"),
    }


def _wait_until_ready(orthanc: RunningOrthanc) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and orthanc.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{orthanc.url}/system", timeout=1):  # noqa: S310 - our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)  # between two questions; the answer ends the wait
    raise AssertionError(f"Orthanc did not start:\n{orthanc.log.read_text(errors='replace')}")
