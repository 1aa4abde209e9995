"""HTTP as a part of `hilum serve`: its port, its own process, and what happens when that dies."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import httpx2

from tests.support.site import Site
from tests.support.web import RELATED, image, part10, related


def _url(site: Site) -> str:
    return f"http://127.0.0.1:{site.status['http_port']}"


def test_served_killed_and_served_again(tmp_path: Path) -> None:
    """A study by STOW-RS is in the ledger; a killed web process is started again on the same port; SIGTERM ends all."""
    with Site(tmp_path, {}) as site:
        url = _url(site)
        answer = httpx2.post(
            f"{url}/dicom-web/studies", content=related(part10(image())), headers={"Content-Type": RELATED}, timeout=30
        )
        assert answer.status_code == 200
        assert [study["instances"] for study in site.ledger.list_studies()] == [1]
        first = site.status["web_pid"]
        os.kill(first, signal.SIGKILL)
        site.wait_for(lambda: site.status["web_pid"] != first, "the web process to start again")
        assert len(httpx2.get(f"{url}/dicom-web/studies", timeout=30).json()) == 1
        assert site.stop() == 0
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        pass  # nobody listens there any more


def test_a_port_in_use(tmp_path: Path) -> None:
    """One sentence and exit status 2, before anything is served."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        site = Site(tmp_path, {"http": {"port": port}})
        for command in ("serve", "web"):
            done = site.hilum(command)
            assert done.returncode == 2
            assert f"cannot listen for HTTP on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]
            assert "set http.port" in done.stderr
        assert "cannot listen for HTTP" in site.hilum("check", "--json").stdout
