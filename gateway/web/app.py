"""The web application: which URL is answered by what, and what every answer has in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.domain.archive import Archive
from gateway.domain.errors import HilumError, InvalidIdentifier, LedgerError
from gateway.domain.ids import AETitle, StudyUID
from gateway.domain.ports import Spool
from gateway.observe.logs import log
from gateway.web.accept import asked, chosen
from gateway.web.access import Tokens, check_origin, identify
from gateway.web.body import Body
from gateway.web.holdings import Holdings
from gateway.web.links import DICOMWEB, VIEWER
from gateway.web.pages import Viewer
from gateway.web.pixels import PixelTool
from gateway.web.problem import Refused, problem
from gateway.web.qido import Qido
from gateway.web.ready import Part, Readiness
from gateway.web.rendered import Rendered
from gateway.web.settings import MIB, HttpSettings
from gateway.web.stow import Receives, Upload, check_content_type, store_all
from gateway.web.stow_answer import response_module
from gateway.web.stow_metadata import store_metadata
from gateway.web.wado import JSON_TYPES, Wado

HTTP_ADDRESS = "http "
"""How the address of a sender begins that came by HTTP."""

_PROBES = ("/healthz", "/readyz")  # for anybody: they tell of no patient, no path and no peer
_OTHERS = ["OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the application is made of."""

    settings: HttpSettings
    archive: Archive
    spool: Spool
    receiver: Receives
    tokens: Tokens | None
    scratch: Path  # for pictures on their way
    viewer: Path  # where OHIF is
    ready: Sequence[Part] = ()  # what `/readyz` looks at


def make_app(parts: Parts) -> tuple[ASGIApp, PixelTool]:
    """The application, and the decoding processes to close after it."""
    pixels = PixelTool(parts.scratch)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.router.routes.extend(_Site(parts, pixels).routes())
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HilumError, _failed)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _broken)
    return _Guard(app, parts), pixels


class _Site:
    """The handlers of one application."""

    def __init__(self, parts: Parts, pixels: PixelTool) -> None:
        holdings = Holdings(parts.archive, parts.spool)
        self._parts = parts
        self._qido, self._wado, self._rendered = Qido(holdings), Wado(holdings, pixels), Rendered(holdings, pixels)
        self._viewer, self._ready = Viewer(parts.viewer), Readiness(parts.ready)
        self._uploads = anyio.CapacityLimiter(parts.settings.max_uploads)

    def routes(self) -> list[Route]:
        """Every URL there is."""
        studies = f"{DICOMWEB}/studies"
        study = f"{studies}/{{study}}"
        series = f"{study}/series/{{series}}"
        instance = f"{series}/instances/{{instance}}"
        small = self._retrieve(partial(self._rendered.picture, small=True))
        get: dict[str, Any] = {
            studies: self._search(self._qido.studies),
            f"{DICOMWEB}/series": self._search(self._qido.series),
            f"{DICOMWEB}/instances": self._search(self._qido.instances),
            f"{study}/series": self._search(self._qido.series),
            f"{study}/instances": self._search(self._qido.instances),
            f"{series}/instances": self._search(self._qido.instances),
            study: self._retrieve(self._wado.instances),
            series: self._retrieve(self._wado.instances),
            instance: self._retrieve(self._wado.instances),
            f"{study}/metadata": self._search(self._wado.metadata),
            f"{series}/metadata": self._search(self._wado.metadata),
            f"{instance}/metadata": self._search(self._wado.metadata),
            **{f"{path}/thumbnail": small for path in (study, series, instance, f"{instance}/frames/{{frame}}")},
            f"{study}/rendered": self._retrieve(self._rendered.pictures),
            f"{series}/rendered": self._retrieve(self._rendered.pictures),
            f"{instance}/rendered": self._retrieve(self._rendered.picture),
            f"{instance}/frames/{{frames}}/rendered": self._retrieve(self._rendered.frames),
            f"{instance}/frames/{{frames}}": self._retrieve(self._wado.frames),
            f"{instance}/bulkdata/{{path:path}}": self._retrieve(self._wado.bulkdata),
            "/": self._home,
            VIEWER: self._home,
            f"{VIEWER}/{{path:path}}": self._page,
            "/healthz": self._health,
            "/readyz": self._ready.answer,
        }
        post = {studies: self._store, study: self._store}
        return [
            *(Route(path, answer, methods=["GET"]) for path, answer in get.items()),
            *(Route(path, answer, methods=["POST"]) for path, answer in post.items()),
            *(Route(path, partial(_other, methods=_methods(path in post)), methods=_OTHERS) for path in get),
        ]

    def _search(self, answer: Any) -> Any:
        async def handle(request: Request) -> Response:
            found: Response = await answer(request, self._base(request), **request.path_params)
            return found

        return handle

    def _retrieve(self, answer: Any) -> Any:
        async def handle(request: Request) -> Response:
            found: Response = await answer(request, **request.path_params)
            return found

        return handle

    async def _store(self, request: Request) -> Response:
        """STOW-RS: checks what can be told at once, then has a thread take the body in."""
        settings = self._parts.settings
        if chosen(asked(request.headers.getlist("accept"), request.query_params), JSON_TYPES) is None:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"the answer is given as {JSON_TYPES[0]}")
        kind = check_content_type(request.headers.get("content-type", ""))
        upload = self._upload(request)
        if self._uploads.available_tokens < 1:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests store at once", {"Retry-After": "5"})
        body = Body(request, limit=settings.max_request_mib * MIB, idle=settings.idle_timeout)
        work = partial(store_all, upload, body, kind, store_metadata)
        try:
            tally = await anyio.to_thread.run_sync(work, limiter=self._uploads)
        except Refused:
            await body.drain()
            raise
        log(stage="web").info("stored", stored=len(tally.stored), offered=tally.total, address=upload.address)
        module = json.dumps(response_module(tally, self._base(request)), separators=(",", ":"))
        headers = {"Cache-Control": "no-store", **tally.headers()}
        return Response(module, tally.status(), headers, media_type=JSON_TYPES[0])

    def _upload(self, request: Request) -> Upload:
        named = request.path_params.get("study")
        try:
            study = StudyUID(named) if named else None
        except InvalidIdentifier as error:
            raise Refused(HTTPStatus.BAD_REQUEST, error.message) from None
        who: AETitle = request.scope["hilum.who"]
        return Upload(
            receiver=self._parts.receiver,
            settings=self._parts.settings,
            calling_ae=who,
            address=HTTP_ADDRESS + (request.client.host if request.client else ""),
            study=study,
        )

    def _base(self, request: Request) -> str:
        if public := self._parts.settings.public_url:
            return public.rstrip("/") + DICOMWEB
        url, port = request.url, request.scope["server"][1]
        # Some clients leave the port out of Host (dicomweb-client does); the one they found us at is right.
        plain = port in (None, 443 if url.scheme == "https" else 80)
        return str(url.replace(path=DICOMWEB, query="", port=url.port or (None if plain else port)))

    async def _home(self, _request: Request) -> Response:
        return RedirectResponse(f"{VIEWER}/")

    async def _page(self, request: Request) -> Response:
        return self._viewer.page(request.path_params["path"])

    async def _health(self, _request: Request) -> Response:
        return Response('{"status":"ok"}', media_type="application/json", headers={"Cache-Control": "no-store"})


class _Guard:
    """Stands before everything: who asks, from where, and the header fields that every answer has."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *((n, v) for n, v in more if n not in there)]
            await send(message)

        if scope["type"] != "http":
            return
        request = Request(scope)
        try:
            check_origin(request.method, request.headers, self._parts.settings)
            if request.url.path not in _PROBES:
                scope["hilum.who"] = identify(request.headers.get("authorization", ""), self._parts.tokens)
        except Refused as error:
            await problem(error.status, error.detail, error.headers)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _methods(stores: bool) -> str:
    return "GET, HEAD, OPTIONS" + (", POST" if stores else "")


async def _other(request: Request, methods: str) -> Response:
    """Which methods a resource has, to those that ask for it and to those that come with another."""
    if request.method == "OPTIONS":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": methods})
    return problem(HTTPStatus.METHOD_NOT_ALLOWED, f"this resource has {methods}", {"Allow": methods})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    return problem(error.status, error.detail, error.headers)


async def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HilumError)  # noqa: S101
    log(stage="web").error("request failed", reason=error.message)
    if isinstance(error, LedgerError):
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the ledger cannot be used now", {"Retry-After": "10"})
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "this cannot be answered now")


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    detail = "there is nothing at this path" if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
    return problem(error.status_code, detail, error.headers)


async def _broken(_request: Request, error: Exception) -> Response:
    # The text of an unforeseen error may hold a value out of a header: its kind must do.
    log(stage="web").error("request failed", error=type(error).__name__)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "this request cannot be answered")
