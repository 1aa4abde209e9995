"""Transactions to a FHIR server over HTTP: the `Ehr` port, with OAuth2 client credentials (RFC 6749 4.4)."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx2

from gateway.domain.errors import DestinationUnreachable
from gateway.domain.job import Receipt, Verdict
from gateway.outgoing import open_client, read_secret
from gateway.report.settings import FhirDestination
from gateway.tls import ClientTls, client_context

_JSON = "application/fhir+json"
_EARLY = 30.0  # seconds before its end at which a token is not used any more
_AGAIN = frozenset({401, 403, 408, 409, 423, 425, 429})  # besides 5xx: the site, or time, may mend it


class FhirEhr:
    """One FHIR server."""

    def __init__(self, destination: FhirDestination) -> None:
        """Raises ConfigurationError where a file cannot be used."""
        self._to = destination
        self._http = open_client(client_context(ClientTls(ca_file=destination.ca_file)), destination.timeout)
        self._lock = threading.Lock()
        self._token, self._token_until = "", 0.0

    def send(self, message: bytes) -> Receipt:
        """Posts one transaction; accepted only where every entry of it was."""
        try:
            answer = self._post(message)
            if answer.status_code == httpx2.codes.UNAUTHORIZED and self._to.oauth:
                self._token = ""  # it may have been taken back
                answer = self._post(message)
        except httpx2.HTTPError as error:
            return Receipt(verdict=Verdict.RETRY, answer=f"{self._to.url}: {_say(error)}")
        except DestinationUnreachable as error:
            return Receipt(verdict=Verdict.RETRY, answer=error.message)
        return judge(answer.status_code, answer.content)

    def echo(self) -> str:
        """Asks for the server's capability statement; raises DestinationUnreachable."""
        started = time.monotonic()
        try:
            answer = self._http.get(f"{self._to.url}/metadata", headers=self._headers())
            statement = answer.json() if answer.status_code == httpx2.codes.OK else {}
        except (httpx2.HTTPError, ValueError) as error:
            raise DestinationUnreachable(f"{self._to.url}: {_say(error)}") from error
        version = str(statement.get("fhirVersion", "")) if isinstance(statement, dict) else ""
        if not version.startswith(("4.0", "4.3")):
            found = f"FHIR {version}" if version else f"HTTP {answer.status_code}"
            raise DestinationUnreachable(f"{self._to.url}/metadata: {found} where FHIR R4 is wanted")
        return f"{self._to.url} speaks FHIR {version}, {(time.monotonic() - started) * 1000:.0f} ms"

    def _post(self, message: bytes) -> httpx2.Response:
        return self._http.post(self._to.url, content=message, headers={**self._headers(), "Content-Type": _JSON})

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": _JSON}
        if self._to.oauth:
            headers["Authorization"] = f"Bearer {self._bearer()}"
        elif self._to.token_file:
            headers["Authorization"] = f"Bearer {read_secret('token_file', self._to.token_file)}"
        return headers

    def _bearer(self) -> str:
        with self._lock:
            if not self._token or time.monotonic() >= self._token_until:
                self._fetch_token()
            return self._token

    def _fetch_token(self) -> None:
        oauth = self._to.oauth
        assert oauth is not None  # noqa: S101
        form = {"grant_type": "client_credentials", **({"scope": oauth.scope} if oauth.scope else {})}
        credentials = (oauth.client_id, read_secret("oauth.client_secret_file", oauth.client_secret_file))
        try:
            answer = self._http.post(oauth.token_url, data=form, auth=credentials)
            found = answer.json() if answer.status_code == httpx2.codes.OK else {}
        except (httpx2.HTTPError, ValueError) as error:
            raise DestinationUnreachable(f"{oauth.token_url}: {_say(error)}") from error
        token = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not token:
            raise DestinationUnreachable(f"{oauth.token_url}: no token (HTTP {answer.status_code})")
        lasts = found.get("expires_in", 300)
        self._token = token
        self._token_until = (
            time.monotonic() + max(float(lasts) if isinstance(lasts, int | float) else 300.0, 60.0) - _EARLY
        )


def judge(status: int, body: bytes) -> Receipt:
    """What an answer means for a transaction. Pure; only codes of an OperationOutcome are told, never its texts."""
    if status in (200, 201):
        return _judge_entries(status, _responses(body))
    codes = ", ".join(_issues(_parsed(body)))
    answer = f"HTTP {status}{': ' if codes else ''}{codes}"
    return Receipt(verdict=_failure(status), answer=answer, answered=True)


def _judge_entries(status: int, responses: list[dict[str, Any]]) -> Receipt:
    """A transaction is all or nothing, but some servers do it entry by entry: the worst entry counts."""
    statuses = [_number(response.get("status")) for response in responses]
    failed = [number for number in statuses if not (200 <= number < 300 or number == 304)]
    if statuses and not failed:
        return Receipt(verdict=Verdict.ACCEPTED, answer=f"{status}, {len(statuses)} entries", answered=True)
    if not failed or min(failed) < 400:
        return Receipt(verdict=Verdict.RETRY, answer=f"{status} without a transaction response", answered=True)
    final = [number for number in failed if _failure(number) is Verdict.REJECTED]
    worst = (final or failed)[0]
    codes = ", ".join(_issues(responses[statuses.index(worst)].get("outcome")))
    answer = f"HTTP {status}, but an entry is answered {worst}{': ' if codes else ''}{codes}"
    return Receipt(verdict=_failure(worst), answer=answer, answered=True)


def _failure(status: int) -> Verdict:
    again = status in _AGAIN or status >= 500 or status < 400
    return Verdict.RETRY if again else Verdict.REJECTED


def _number(status: object) -> int:
    """The code of `201 Created`; 0 for none."""
    code = str(status)[:3]
    return int(code) if code.isascii() and code.isdigit() else 0


def _responses(body: bytes) -> list[dict[str, Any]]:
    found = _parsed(body)
    entries = found.get("entry") if found.get("type") == "transaction-response" else None
    entries = entries if isinstance(entries, list) else []
    responses = [entry.get("response") if isinstance(entry, dict) else None for entry in entries]
    return [response if isinstance(response, dict) else {} for response in responses]


def _issues(outcome: object) -> list[str]:
    issues = outcome.get("issue") if isinstance(outcome, dict) else None
    codes = [str(item.get("code", "")) for item in issues if isinstance(item, dict)] if isinstance(issues, list) else []
    return [code for code in dict.fromkeys(codes) if code.isascii() and code.replace("-", "").isalpha()][:5]


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
