"""Pictures of what is held (PS3.18 10.4.1.1.3, rendered and thumbnail resources); the decoding is done elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain.archive import Held
from gateway.domain.ids import digest
from gateway.web.accept import asked, chosen
from gateway.web.holdings import Holdings
from gateway.web.pixels import DECODABLE, PixelTool
from gateway.web.problem import Refused
from gateway.web.wado import as_multipart, etag_of

_KINDS = ("image/jpeg", "image/png")
_NUMBER = r"[+-]?[0-9]{1,9}(?:\.[0-9]{1,6})?"
_WINDOW = re.compile(rf"({_NUMBER}),({_NUMBER})(?:,(?:linear|linear-exact))?")
_VIEWPORT = re.compile(r"([1-9][0-9]{0,3}),([1-9][0-9]{0,3})")
_THUMBNAIL = "128,128"
_MOST_PICTURES = 10_000  # of one request


class Rendered:
    """Single frames as pictures."""

    def __init__(self, holdings: Holdings, pixels: PixelTool) -> None:
        self._holdings, self._pixels = holdings, pixels

    async def picture(
        self,
        request: Request,
        study: str,
        series: str = "",
        instance: str = "",
        frame: str = "1",
        *,
        small: bool = False,
    ) -> Response:
        """A frame of an instance, or of the image in the middle of a series or study."""
        return await run_in_threadpool(self._picture, request, (study, series, instance), frame, small)

    async def frames(self, request: Request, study: str, series: str, instance: str, frames: str) -> Response:
        """One frame as a picture, or several of them as a message of pictures."""
        if "," not in frames:
            return await self.picture(request, study, series, instance, frames)
        return await self.pictures(request, study, series, instance, frames)

    async def pictures(
        self, request: Request, study: str, series: str = "", instance: str = "", frames: str = ""
    ) -> Response:
        """Some frames, or every frame of every image there is, as multipart/related."""
        return await run_in_threadpool(self._pictures, request, (study, series, instance), frames)

    def _pictures(self, request: Request, uids: tuple[str, str, str], frames: str) -> Response:
        accept = asked(request.headers.getlist("accept"), request.query_params)
        kind = next((kind for wanted in accept for kind in _KINDS if wanted.covers_part(kind)), None)
        if kind is None:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"these are given as multipart/related with {' or '.join(_KINDS)}")
        order = _order(request.query_params, False)
        every = ((one, number) for one in self._holdings.find(*uids) for number in _numbers(one, frames))
        wanted = list(islice(every, _MOST_PICTURES + 1))  # an image may say that it has two thousand million frames
        if not wanted:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, "no picture can be made of anything here")
        if len(wanted) > _MOST_PICTURES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {_MOST_PICTURES} pictures in one request")
        parts = (({"Content-Type": kind}, (self._render(one, number, kind, order),)) for one, number in wanted)
        tag = etag_of([one for one, _ in wanted], frames, kind, repr(order))
        return as_multipart(parts, kind, tag, "private, no-cache")

    def _picture(self, request: Request, uids: tuple[str, str, str], frame: str, small: bool) -> Response:
        kind = chosen(asked(request.headers.getlist("accept"), request.query_params), _KINDS)
        if kind is None:
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"pictures are given as {' or '.join(_KINDS)}")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", frame):
            raise Refused(HTTPStatus.BAD_REQUEST, "a picture shows one frame, a number from 1")
        order = _order(request.query_params, small)
        held = self._holdings.find(*uids)
        pictures = [one for one in held if _can_be_shown(one)] or held
        one = pictures[len(pictures) // 2]
        if int(frame) > one.header.frames:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such frame")
        tag = f'"{digest(one.sha256, frame, kind, repr(order))}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept"}
        if request.headers.get("if-none-match", "") == tag:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self._render(one, int(frame), kind, order), headers=headers, media_type=kind)

    def _render(self, one: Held, frame: int, kind: str, order: dict[str, Any]) -> bytes:
        if not _can_be_shown(one):
            raise Refused(HTTPStatus.NOT_ACCEPTABLE, "no picture can be made of this instance")
        picture = {"format": kind.removeprefix("image/"), "frames": [frame - 1], **order}
        with self._pixels.run("picture", self._holdings.path(one), **picture) as file:
            return file.read_bytes()


def _numbers(one: Held, frames: str) -> Iterable[int]:
    """The frames that are asked for, or all; none of what cannot be shown unless it was asked for by name."""
    if not frames:
        return range(1, one.header.frames + 1) if _can_be_shown(one) else ()
    if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", frames):
        raise Refused(HTTPStatus.BAD_REQUEST, "frames are numbers from 1, with commas between them")
    numbers = [int(text) for text in frames.split(",")]
    if max(numbers) > one.header.frames:
        raise Refused(HTTPStatus.NOT_FOUND, "there is no such frame")
    return numbers


def _can_be_shown(one: Held) -> bool:
    return bool(one.header.rows) and one.header.transfer_syntax_uid in DECODABLE


def _order(query: Mapping[str, str], small: bool) -> dict[str, Any]:
    """What the query parameters ask for (PS3.18 8.3.5.1); raises Refused (400)."""
    order: dict[str, Any] = {"quality": 90}
    if text := query.get("quality"):
        if not re.fullmatch(r"[1-9][0-9]?|100", text):
            raise Refused(HTTPStatus.BAD_REQUEST, "quality must be from 1 to 100")
        order["quality"] = int(text)
    if text := query.get("window"):
        found = _WINDOW.fullmatch(text)
        if not found or float(found[2]) <= 0:
            raise Refused(HTTPStatus.BAD_REQUEST, "window must be center,width or center,width,linear")
        order["window"] = [float(found[1]), float(found[2])]
    if text := query.get("viewport", _THUMBNAIL if small else ""):
        found = _VIEWPORT.fullmatch(text)
        if not found:
            raise Refused(HTTPStatus.BAD_REQUEST, "viewport must be width,height")
        order["size"] = [int(found[1]), int(found[2])]
    return order
