"""Transactions over HTTP: tokens, what an answer means, and that a retry is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.errors import DestinationUnreachable
from gateway.domain.job import Verdict
from gateway.report.fhir import build
from gateway.report.fhir_client import FhirEhr
from gateway.report.settings import FhirDestination
from tests.support.fhir import Recorder, Resource, fhir_server
from tests.support.orthanc import free_port
from tests.support.outcomes import report


def destination(server: Recorder | None = None, **more: object) -> FhirDestination:
    url = server.url if server else f"http://127.0.0.1:{free_port()}/fhir"
    return FhirDestination.model_validate({"kind": "fhir", "url": url, "timeout": "5s", **more})


def with_oauth(server: Recorder, directory: Path, **more: object) -> FhirDestination:
    secret = directory / "secret"
    secret.write_text("s3cret\n")
    oauth = {
        "token_url": f"http://127.0.0.1:{server.port}/token",
        "client_id": "hilum",
        "client_secret_file": str(secret),
        "scope": "system/*.write",
    }
    return destination(server, oauth=oauth, **more)


def message(to: FhirDestination) -> bytes:
    return build(report(), to)


def test_a_transaction_is_taken_once_however_often_it_is_sent() -> None:
    """Every entry is answered; the second time everything is there already."""
    with fhir_server() as server:
        to = destination(server)
        client = FhirEhr(to)
        assert [client.send(message(to)).verdict for _ in range(2)] == [Verdict.ACCEPTED] * 2
    assert len(server.bundles) == 2
    assert len(server.of("DiagnosticReport")) == 1
    assert len(server.of("Provenance")) == 1


def test_client_credentials_are_kept_until_they_are_refused(tmp_path: Path) -> None:
    """One token for many messages; a new one where the server has forgotten the old; the secret is read from its file."""
    with fhir_server() as server:
        to = with_oauth(server, tmp_path)
        client = FhirEhr(to)
        for _ in range(3):
            assert client.send(message(to)).verdict is Verdict.ACCEPTED
        assert len(server.token_requests) == 1
        server.token = f"not {server.token}"
        assert client.send(message(to)).verdict is Verdict.ACCEPTED
    assert len(server.token_requests) == 2
    header, form = server.token_requests[0]
    assert header.startswith("Basic ")
    assert "grant_type=client_credentials" in form
    assert "scope=system/*.write" in form
    assert server.authorizations[:3] == ["Bearer t1"] * 3
    assert server.authorizations[-1] == "Bearer t2"


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (
            400,
            {"resourceType": "OperationOutcome", "issue": [{"code": "required", "diagnostics": "Doe, Jane"}]},
            Verdict.REJECTED,
        ),
        (404, {}, Verdict.REJECTED),
        (412, {"issue": [{"code": "multiple-matches"}]}, Verdict.REJECTED),
        (413, {}, Verdict.REJECTED),
        (422, {"issue": "nonsense"}, Verdict.REJECTED),
        (401, {}, Verdict.RETRY),
        (403, {}, Verdict.RETRY),
        (409, {}, Verdict.RETRY),
        (429, {}, Verdict.RETRY),
        (500, {}, Verdict.RETRY),
        (503, {}, Verdict.RETRY),
        (200, {}, Verdict.RETRY),
        (200, {"type": "transaction-response", "entry": [{"response": {"status": "400"}}]}, Verdict.REJECTED),
        (200, {"type": "transaction-response", "entry": [{"response": {"status": "503 Busy"}}]}, Verdict.RETRY),
        (200, {"type": "transaction-response", "entry": [{"response": {"status": "201"}}, {}]}, Verdict.RETRY),
        (200, {"type": "transaction-response", "entry": "?"}, Verdict.RETRY),
        (302, {}, Verdict.RETRY),
    ],
)
def test_each_answer_has_its_verdict(status: int, body: Resource, verdict: Verdict) -> None:
    """What is told of it has no patient in it; the next message is delivered."""
    with fhir_server() as server:
        to = destination(server)
        server.script.append((status, body))
        client = FhirEhr(to)
        receipt = client.send(message(to))
        assert receipt.verdict is verdict
        assert "Doe" not in receipt.answer
        assert str(status) in receipt.answer
        assert client.send(message(to)).verdict is Verdict.ACCEPTED


def test_nobody_there_is_tried_again(tmp_path: Path) -> None:
    """Neither the server nor the one that gives tokens."""
    to = destination()
    assert FhirEhr(to).send(message(to)).verdict is Verdict.RETRY
    with pytest.raises(DestinationUnreachable):
        FhirEhr(to).echo()
    with fhir_server() as server:
        lost = with_oauth(server, tmp_path)
        assert lost.oauth is not None
        lost = lost.model_copy(update={"oauth": lost.oauth.model_copy(update={"token_url": f"{to.url}/token"})})
        assert FhirEhr(lost).send(message(lost)).verdict is Verdict.RETRY
    assert server.bundles == []


def test_echo_reads_the_capability_statement() -> None:
    """And says which FHIR it is."""
    with fhir_server() as server:
        assert "FHIR 4.0.1" in FhirEhr(destination(server)).echo()
