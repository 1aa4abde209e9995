"""An Orthanc of our own for the demonstration: `orthanc-config/orthanc.json` with free ports and its own directories."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from importlib import resources
from pathlib import Path

import httpx2

from gateway.domain.errors import ServiceUnavailable

_START_SECONDS = 30.0


def find_orthanc() -> str | None:
    """The program, also where `/usr/sbin` is not on the path."""
    return shutil.which("Orthanc", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


def read_configuration() -> dict[str, object]:
    """The configuration that ships with Hilum."""
    checkout = Path(__file__).parents[2] / "orthanc-config" / "orthanc.json"
    file = checkout if checkout.is_file() else resources.files("gateway") / "demo_orthanc" / "orthanc.json"
    found: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return found


class DemoOrthanc:
    """Starts and stops it."""

    def __init__(self, directory: Path, hilum_port: int) -> None:
        self._directory = directory
        self.http_port, self.dicom_port = free_port(), free_port()
        self._hilum_port = hilum_port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Root of its REST API."""
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Starts it and waits until it answers; raises ServiceUnavailable."""
        program = find_orthanc()
        if program is None:
            raise ServiceUnavailable("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "orthanc.json"
        file.write_text(json.dumps(self._configuration(), indent=2), encoding="utf-8")
        with (self._directory / "orthanc.log").open("wb") as output:
            self._process = subprocess.Popen(
                [program, str(file)], stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self._wait()

    def stop(self) -> None:
        """Stops it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None

    def _configuration(self) -> dict[str, object]:
        storage = str(self._directory / "storage")
        return read_configuration() | {
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "LuaScripts": [],  # the demonstration sends to Hilum by itself
            "DicomModalities": {"hilum": ["HILUM", "127.0.0.1", self._hilum_port]},
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            try:
                httpx2.get(f"{self.url}/system", timeout=1).raise_for_status()
            except httpx2.HTTPError:
                time.sleep(0.1)
            else:
                return
        raise ServiceUnavailable(f"Orthanc did not start; see {self._directory / 'orthanc.log'}")


def free_port() -> int:
    """A TCP port of the loopback interface that is free now; raises ServiceUnavailable where none is found.

    Not one that the system would choose: those (32768 and above on Linux) it also gives to outgoing connections, which
    take the port away again before a server that is slow to start has it. Nor one of a generator that may be seeded: two
    processes would choose the same.
    """
    for _ in range(1000):
        port = 15000 + secrets.randbelow(17000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceUnavailable("no TCP port between 15000 and 32000 is free")
