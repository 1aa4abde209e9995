"""Medplum's FHIR R4 server code, in memory, behind HTTP: a server that is not ours. See `fhir_server/server.mjs`."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

_HOME = Path(__file__).parent / "fhir_server"

Resource = dict[str, Any]


@dataclass(frozen=True)
class Medplum:
    """One server that runs."""

    url: str  # base, without slash
    http: httpx2.Client

    def search(self, kind: str, query: str = "") -> list[Resource]:
        """What a FHIR search finds."""
        answer = self.http.get(f"{self.url}/{kind}?{quote(query, safe='=&|:')}&_count=100")
        assert answer.status_code == 200, answer.text[:500]
        return [entry["resource"] for entry in answer.json().get("entry", [])]

    def read(self, reference: str) -> Resource:
        """The resource that a reference names."""
        answer = self.http.get(f"{self.url}/{reference}")
        assert answer.status_code == 200, answer.text[:500]
        found: Resource = answer.json()
        return found


def _install() -> None:
    with (Path(tempfile.gettempdir()) / "hilum-fhir-server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test files run beside each other
        if not (_HOME / "node_modules" / "@medplum" / "fhir-router").is_dir():
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=_HOME, capture_output=True, text=True, timeout=280, check=False)
            assert done.returncode == 0, done.stderr[-2000:]


@contextmanager
def medplum_server() -> Iterator[Medplum]:
    """A server on a free loopback port, installed where it is not yet: by the versions and hashes of its lock file."""
    _install()
    with subprocess.Popen(
        ["node", "server.mjs"],
        cwd=_HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        assert port.isdigit(), "the FHIR server did not start"
        try:
            with httpx2.Client(verify=False, trust_env=False) as http:
                yield Medplum(f"http://127.0.0.1:{port}/fhir", http)
        finally:
            server.stdin.close()
            server.wait(10)
