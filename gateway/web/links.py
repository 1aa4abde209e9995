"""Where a person looks at things. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from gateway.web.settings import HttpSettings

DICOMWEB = "/dicom-web"
VIEWER = "/viewer"
_SHOWS = ("seg", "sr")  # roles that OHIF draws over the images, the best first


def public_url(settings: HttpSettings, port: int = 0) -> str:
    """Where clients reach us, without a slash at the end; `port` where the system has chosen it."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls else 'http'}://{host}:{port or settings.port}"


def viewer_link(base: str, study: str, objects: Iterable[Mapping[str, Any]]) -> str:
    """A study in OHIF, with the overlay of a job's result on; `objects` as a job's outcome has them."""
    series = {str(item["role"]): str(item["series_uid"]) for item in objects}
    shown = next((series[role] for role in _SHOWS if role in series), "")
    return study_link(base, study, shown)


def study_link(base: str, study: str, series: str = "") -> str:
    """A study in OHIF; a SEG or SR series is loaded at once."""
    query = {"StudyInstanceUIDs": study} | ({"initialSeriesInstanceUID": series} if series else {})
    return f"{base}{VIEWER}/viewer?{urlencode(query)}"
