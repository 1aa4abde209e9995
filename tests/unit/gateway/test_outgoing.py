"""What every HTTP client of ours has in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.deliver.settings import DicomwebDestination
from gateway.deliver.stow import StowPacs
from gateway.domain.errors import ConfigurationError
from gateway.domain.ports import Ehr, Pacs
from gateway.outgoing import open_client, read_secret
from gateway.report.fhir_client import FhirEhr
from gateway.report.settings import FhirDestination
from gateway.tls import ClientTls, client_context
from tests.support.http import Reply, web_server

CAPABILITIES = b'{"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}'


@pytest.mark.parametrize("kind", ["dicomweb", "fhir"])
def test_no_proxy_of_the_environment_sees_anything(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patients' data goes where the configuration says, and not through whatever the process was started with."""
    with web_server(lambda _: Reply()) as proxy, web_server(lambda _: Reply(body=CAPABILITIES)) as peer:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        called: Pacs | Ehr = (
            StowPacs(DicomwebDestination(kind="dicomweb", url=peer.url))
            if kind == "dicomweb"
            else FhirEhr(FhirDestination(kind="fhir", url=peer.url))
        )
        called.echo()
    assert proxy.requests == []
    assert len(peer.requests) == 1


def test_nobody_is_followed_elsewhere() -> None:
    """A peer that points to another address is not obeyed."""
    with web_server(lambda _: Reply()) as other:
        moved = Reply(status=307, headers={"Location": other.url})
        with web_server(lambda _: moved) as peer, open_client(client_context(ClientTls()), 5.0) as client:
            assert client.get(peer.url).status_code == 307
        assert other.requests == []


def test_a_secret_that_is_not_there_names_its_key(tmp_path: Path) -> None:
    """And a good one comes without the line's end."""
    (tmp_path / "token").write_text("s3cret\n")
    assert read_secret("token_file", tmp_path / "token") == "s3cret"
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, said in (("none", "No such file"), ("binary", "not text")):
        with pytest.raises(ConfigurationError, match=rf"token_file cannot be read: {said}"):
            read_secret("token_file", tmp_path / name)
