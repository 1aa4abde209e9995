"""OHIF beside another archive: its pages from here, its DICOMweb passed through, so that both have one origin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx2
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.domain.errors import ConfigurationError
from gateway.web.access import check_origin, identify, read_tokens
from gateway.web.links import DICOMWEB, VIEWER
from gateway.web.pages import Viewer
from gateway.web.problem import Refused, problem
from gateway.web.settings import HttpSettings

_ASKED = ("accept", "if-none-match", "range")
_ANSWERED = ("content-type", "content-length", "etag", "cache-control", "warning", "content-location")
_PATIENCE = 60.0  # seconds for the archive


class Beside:
    """Answers for the viewer's pages, and passes GET requests for DICOMweb on to one archive."""

    def __init__(self, pages: Viewer, dicomweb: str, settings: HttpSettings) -> None:
        """Raises ConfigurationError for an archive that has no HTTP address."""
        if not dicomweb.startswith(("http://", "https://")):
            raise ConfigurationError("--dicomweb: write http://HOST:PORT/PATH")
        self._pages, self._archive, self._settings = pages, dicomweb.rstrip("/"), settings
        self._tokens = read_tokens(settings.tokens_file)
        # No redirects: what the archive says must not lead us to other machines.
        self._client = httpx2.AsyncClient(timeout=_PATIENCE, trust_env=False, follow_redirects=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except Refused as error:
            answer = problem(error.status, error.detail, error.headers)
        except httpx2.HTTPError:
            answer = problem(502, "the archive does not answer")
        answer.headers["X-Content-Type-Options"] = "nosniff"
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        check_origin(request.method, request.headers, self._settings)
        identify(request.headers.get("authorization", ""), self._tokens)
        path = request.url.path
        if request.method != "GET":
            raise Refused(405, "only reading is passed on", {"Allow": "GET"})
        if path.startswith(f"{DICOMWEB}/"):
            return await self._pass_on(request, path.removeprefix(DICOMWEB))
        return self._pages.page(path.removeprefix(VIEWER).lstrip("/"))

    async def _pass_on(self, request: Request, path: str) -> Response:
        # Orthanc 1.10 does not understand a comma that is percent-encoded, as OHIF sends it.
        query = request.url.query.replace("%2C", ",").replace("%2c", ",")
        asked = self._client.build_request(
            "GET", f"{self._archive}{path}{'?' if query else ''}{query}", headers=self._asked(request.headers)
        )
        answer = await self._client.send(asked, stream=True)
        headers = {name: value for name, value in answer.headers.items() if name.lower() in _ANSWERED}
        return StreamingResponse(_pieces(answer), answer.status_code, headers)

    def _asked(self, headers: Mapping[str, str]) -> dict[str, str]:
        # The archive writes its own URLs into metadata: they must lead back through us.
        host = headers.get("host", "")
        scheme = "https" if self._settings.tls else "http"
        there = {name: headers[name] for name in _ASKED if name in headers}
        return {**there, "Accept-Encoding": "identity", "Host": host, "Forwarded": f"host={host};proto={scheme}"}


async def _pieces(answer: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()
