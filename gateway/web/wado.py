"""WADO-RS (PS3.18 10.4): instances, metadata, frames, bulk data and pictures of what is held."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from itertools import chain, islice
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.domain.archive import Held
from gateway.domain.errors import NotDicom
from gateway.domain.ids import digest
from gateway.web import metadata, multipart
from gateway.web.accept import MediaRange, asked, chosen
from gateway.web.holdings import Holdings
from gateway.web.negotiate import EXPLICIT, MEDIA_TYPE, OCTETS, Form, frame_form, instance_form
from gateway.web.opened import Opened, opened
from gateway.web.pixels import DECODABLE, PixelTool
from gateway.web.problem import Refused

JSON_TYPES = ("application/dicom+json", "application/json")
_PREAMBLE = 128
_CHUNK = 1 << 20
_FIRST = 2  # a part's header fields, and the first of its content
_FRAME_LIST = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*")
_MOST_FRAMES = 10_000  # of one request
_AT_ONCE = 64  # frames that are decoded into one file

# Whatever holds names must not stay in a browser; pixels alone may, but are asked after each time.
_NO_STORE, _REVALIDATE = "no-store", "private, no-cache"


class Wado:
    """The read side's retrievals."""

    def __init__(self, holdings: Holdings, pixels: PixelTool) -> None:
        self._holdings, self._pixels = holdings, pixels

    async def instances(self, request: Request, study: str, series: str = "", instance: str = "") -> Response:
        """A study, a series or an instance, as files."""
        return await run_in_threadpool(self._instances, request, study, series, instance)

    async def metadata(self, request: Request, base: str, study: str, series: str = "", instance: str = "") -> Response:
        """A study's, series' or instance's attributes as DICOM JSON."""
        return await run_in_threadpool(self._metadata, request, base, study, series, instance)

    async def frames(self, request: Request, study: str, series: str, instance: str, frames: str) -> Response:
        """Some frames of an instance."""
        return await run_in_threadpool(self._frames, request, study, series, instance, frames)

    async def bulkdata(self, request: Request, study: str, series: str, instance: str, path: str) -> Response:
        """A large value that metadata names by its URI."""
        return await run_in_threadpool(self._bulkdata, request, study, series, instance, path)

    def _instances(self, request: Request, study: str, series: str, instance: str) -> Response:
        held = self._holdings.find(study, series, instance)
        accept = asked(request.headers.getlist("accept"), request.query_params)
        forms = [self._instance_form(accept, one, bool(instance)) for one in held]
        tag = etag_of(held, *{form.content_type for form in forms})
        if _unchanged(request, tag):
            return _not_modified(tag, _NO_STORE)
        if not forms[0].multipart:
            name = f'attachment; filename="{held[0].header.sop_instance_uid}.dcm"'
            return _stream(self._file(held[0], forms[0]), forms[0].content_type, tag, _NO_STORE, disposition=name)
        parts = (
            ({"Content-Type": form.content_type}, self._file(one, form)) for one, form in zip(held, forms, strict=True)
        )
        return as_multipart(parts, forms[0].media_type, tag, _NO_STORE)

    def _instance_form(self, accept: Sequence[MediaRange], one: Held, single: bool) -> Form:
        stored = one.header.transfer_syntax_uid
        form = instance_form(accept, stored, single=single)
        self._holdings.path(one)  # 410 now, not in the middle of the answer
        return _possible(form, stored, "application/dicom")

    def _file(self, one: Held, form: Form) -> Iterator[bytes]:
        """The file with a preamble of zeros, whatever was in it."""
        path = self._holdings.path(one)
        if not form.decoded:
            yield from _read_file(path)
            return
        with self._pixels.run("instance", path) as changed:
            yield from _read_file(changed)

    def _metadata(self, request: Request, base: str, study: str, series: str, instance: str) -> Response:
        kind = chosen(asked(request.headers.getlist("accept"), request.query_params), JSON_TYPES)
        if kind is None:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"metadata is given as {JSON_TYPES[0]}")
        held = self._holdings.find(study, series, instance)
        tag = etag_of(held, base)
        if _unchanged(request, tag):
            return _not_modified(tag, _NO_STORE)
        return _stream(self._json(held, base), kind, tag, _NO_STORE)

    def _json(self, held: Sequence[Held], base: str) -> Iterator[bytes]:
        for number, one in enumerate(held):
            yield (b"," if number else b"[") + self._holdings.metadata(one, base).encode()
        yield b"]"

    def _frames(self, request: Request, study: str, series: str, instance: str, frames: str) -> Response:
        if not _FRAME_LIST.fullmatch(frames):
            raise Refused(HTTPStatus.BAD_REQUEST, "frames are numbers from 1, with commas between them")
        numbers = [int(text) for text in frames.split(",")]
        if len(numbers) > _MOST_FRAMES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {_MOST_FRAMES} frames in one request")
        one = self._holdings.find(study, series, instance)[0]
        stored = one.header.transfer_syntax_uid
        accept = asked(request.headers.getlist("accept"), request.query_params)
        form = _possible(frame_form(accept, stored, single=len(numbers) == 1), stored, OCTETS)
        tag = etag_of([one], frames, form.content_type)
        if _unchanged(request, tag):
            return _not_modified(tag, _REVALIDATE)
        path = self._holdings.path(one)
        with readable(path) as file:
            if file.pixels is None or max(numbers) > file.frames:
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such frame")
            file.frame(max(numbers) - 1)  # broken pixel data is found now, not in the middle of the answer
        found = self._decoded(path, numbers) if form.decoded else _as_stored(path, numbers)
        if not form.multipart:
            return _stream(found, form.content_type, tag, _REVALIDATE)
        parts = (({"Content-Type": form.content_type}, (data,)) for data in found)
        return as_multipart(parts, form.media_type, tag, _REVALIDATE)

    def _decoded(self, path: Path, numbers: Sequence[int]) -> Iterator[bytes]:
        for start in range(0, len(numbers), _AT_ONCE):
            some = [number - 1 for number in numbers[start : start + _AT_ONCE]]
            with self._pixels.run("frames", path, frames=some) as output, output.open("rb") as data:
                size = output.stat().st_size // len(some)
                for _ in some:
                    yield data.read(size)

    def _bulkdata(self, request: Request, study: str, series: str, instance: str, path: str) -> Response:
        one = self._holdings.find(study, series, instance)[0]
        names = tuple(part.upper() for part in path.split("/"))
        tag = etag_of([one], path)
        if _unchanged(request, tag):
            return _not_modified(tag, _REVALIDATE)
        file = self._holdings.path(one)
        accept = asked(request.headers.getlist("accept"), request.query_params)
        with readable(file) as found:
            if found.pixels is not None and names == (f"{found.pixels.tag:08X}",):
                return _pixel_data(accept, found, file, tag)
            value = metadata.find_bulk(found.dataset, names)
        if value is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such bulk data")
        data = metadata.little_endian(*value, one.header.transfer_syntax_uid)
        return _bulk(accept, (data,), tag)


def _pixel_data(accept: Sequence[MediaRange], found: Opened, file: Path, tag: str) -> Response:
    assert found.pixels is not None  # noqa: S101
    stored, count = found.syntax, found.frames
    if not found.pixels.encapsulated:
        width = max(found.number("BitsAllocated", 8) // 8, 1)
        return _bulk(accept, _native(file, width if stored == "1.2.840.10008.1.2.2" else 1), tag)
    kind = MEDIA_TYPE.get(stored, OCTETS)
    if not any(one.covers_part(kind) or one.covers_part(OCTETS) for one in accept):
        raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"this is given as multipart/related with {kind}")
    frames = _as_stored(file, range(1, count + 1))
    parts = (({"Content-Type": f"{kind}; transfer-syntax={stored}"}, (data,)) for data in frames)
    return as_multipart(parts, kind, tag, _REVALIDATE)


def _native(path: Path, width: int) -> Iterator[bytes]:
    with readable(path) as file:
        assert file.pixels is not None  # noqa: S101
        for start in range(0, file.pixels.length, _CHUNK):
            data = file.value(start, min(_CHUNK, file.pixels.length - start))
            yield data if width == 1 else metadata.swap(data, width)


def _bulk(accept: Sequence[MediaRange], content: Iterable[bytes], tag: str) -> Response:
    for wanted in accept:
        if wanted.covers_part(OCTETS):
            return as_multipart([({"Content-Type": OCTETS}, content)], OCTETS, tag, _REVALIDATE)
        if wanted.covers(OCTETS):
            return _stream(content, OCTETS, tag, _REVALIDATE)
    raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"this is given as {OCTETS}")


@contextmanager
def readable(path: Path) -> Iterator[Opened]:
    """`opened`, for a request: raises Refused where the stored file or its pixels cannot be read."""
    try:
        with opened(path) as one:
            yield one
    except (NotDicom, OSError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> Refused:
    text = error.message if isinstance(error, NotDicom) else "the stored file cannot be read"
    return Refused(HTTPStatus.NOT_FOUND, text)


def _as_stored(path: Path, numbers: Iterable[int]) -> Iterator[bytes]:
    with opened(path) as file:
        for number in numbers:
            yield file.frame(number - 1)


def _possible(form: Form | None, stored: str, kind: str) -> Form:
    if form is not None and (not form.decoded or stored in DECODABLE):
        return form
    offers = " or ".join(f"{kind}; transfer-syntax={one}" for one in dict.fromkeys((stored, EXPLICIT)))
    raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"this is given as multipart/related with {offers}")


def _read_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(_PREAMBLE)
        yield b"\0" * _PREAMBLE
        while chunk := file.read(_CHUNK):
            yield chunk


def etag_of(held: Sequence[Held], *form: str) -> str:
    """The same digest of the same content in the same form."""
    return f'"{digest(*(one.sha256 for one in held), *sorted(form))}"'


def _unchanged(request: Request, tag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in known.split(","))


def _not_modified(tag: str, cache: str) -> Response:
    return Response(
        status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag, "Cache-Control": cache, "Vary": "Accept"}
    )


def as_multipart(
    parts: Iterable[tuple[dict[str, str], Iterable[bytes]]], kind: str, tag: str, cache: str
) -> StreamingResponse:
    """A multipart/related message, its parts made while it is sent."""
    boundary = multipart.new_boundary()
    return _stream(
        multipart.write(parts, boundary), f'multipart/related; type="{kind}"; boundary={boundary}', tag, cache
    )


def _stream(content: Iterable[bytes], kind: str, tag: str, cache: str, disposition: str = "") -> StreamingResponse:
    """The first pieces are made at once: what goes wrong with them is an answer, and not the end of one."""
    pieces = iter(content)
    first = list(islice(pieces, _FIRST))
    more = {"Content-Disposition": disposition} if disposition else {}
    headers = {"ETag": tag, "Cache-Control": cache, "Vary": "Accept", "Content-Type": kind, **more}
    return _Streaming(first, pieces, headers)


class _Streaming(StreamingResponse):
    """Lets go of what it reads from when it is over, also where the client has gone: a file would stay open until some day."""

    def __init__(self, first: Iterable[bytes], rest: Iterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(chain(first, rest), headers=headers)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if isinstance(self._rest, Generator):
                self._rest.close()
