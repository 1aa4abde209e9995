"""Every refusal over HTTP is one problem+json document (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response


class Refused(Exception):
    """A request that is not answered with what it asks for. `detail` holds no patient data and none of our paths."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The document as a response."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    more = {"Cache-Control": "no-store", **(headers or {})}
    return Response(json.dumps(content), status, more, media_type="application/problem+json")
