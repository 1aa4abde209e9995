"""A FHIR server for tests: keeps resources, obeys conditional creates and updates in transactions, and OAuth2."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Resource = dict[str, Any]


@dataclass
class Recorder:
    """What the server has been told, and what it answers instead of doing its work."""

    port: int = 0
    resources: dict[str, Resource] = field(default_factory=dict)  # Type/id -> resource
    bundles: list[Resource] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    token_requests: list[tuple[str, str]] = field(default_factory=list)  # authorization header, form
    script: list[tuple[int, Resource]] = field(default_factory=list)  # answers to come before it works
    token: str = ""  # what it wants as bearer; empty: anybody may
    on_bundle: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Base of the server."""
        return f"http://127.0.0.1:{self.port}/fhir"

    def of(self, kind: str) -> list[Resource]:
        """All resources of a type."""
        return [one for key, one in self.resources.items() if key.startswith(f"{kind}/")]

    def take(self, bundle: Resource) -> Resource:
        """Does a transaction: all entries, with references between them resolved."""
        with self.lock:
            self.bundles.append(bundle)
            known: dict[str, str] = {}
            answers = []
            for entry in bundle["entry"]:
                key, status = self._place(entry)
                known[entry["fullUrl"]] = key
                answers.append((entry, key, status))
            for entry, key, status in answers:
                if status != "200 OK" or entry["request"]["method"] == "PUT":
                    text = json.dumps(entry["resource"])
                    for url, target in known.items():
                        text = text.replace(url, target)
                    self.resources[key] = json.loads(text)
            return {
                "resourceType": "Bundle",
                "type": "transaction-response",
                "entry": [{"response": {"status": status, "location": key}} for _, key, status in answers],
            }

    def _place(self, entry: Resource) -> tuple[str, str]:
        kind, request = entry["resource"]["resourceType"], entry["request"]
        conditional = request.get("ifNoneExist") or urlsplit(request["url"]).query
        found = self._search(kind, conditional) if conditional else None
        if found is not None:
            return found, "200 OK"
        key = f"{kind}/{len(self.resources) + 1}"
        self.resources[key] = entry["resource"]
        return key, "201 Created"

    def _search(self, kind: str, query: str) -> str | None:
        ((name, (token,)),) = parse_qs(query).items()
        system, _, value = token.partition("|")
        for key, one in self.resources.items():
            places = one.get("meta", {}).get("tag", []) if name == "_tag" else one.get("identifier", [])
            if key.startswith(f"{kind}/") and any(
                item.get("system") == system and value in (item.get("value"), item.get("code")) for item in places
            ):
                return key
        return None


@contextmanager
def fhir_server() -> Iterator[Recorder]:
    """A server on a free loopback port."""
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._say(200, {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/token":
                recorder.token_requests.append((self.headers.get("Authorization", ""), unquote(body.decode())))
                recorder.token = f"t{len(recorder.token_requests)}"
                self._say(200, {"access_token": recorder.token, "token_type": "Bearer", "expires_in": 3600})
                return
            recorder.authorizations.append(self.headers.get("Authorization", ""))
            if recorder.on_bundle:
                recorder.on_bundle(self)
            if recorder.token and self.headers.get("Authorization") != f"Bearer {recorder.token}":
                self._say(401, {})
            elif recorder.script:
                self._say(*recorder.script.pop(0))
            else:
                self._say(200, recorder.take(json.loads(body)))

        def _say(self, status: int, value: Resource) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/fhir+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
