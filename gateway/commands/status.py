"""What a running gateway says of itself: processes and ports, in a file beside its data."""

from __future__ import annotations

import json

from gateway.settings import Settings
from gateway.web.links import public_url

STATUS_FILE = "serve.json"


def served_at(settings: Settings) -> str:
    """URL of the web pages; where the system has chosen the port, the one that the running gateway says it has."""
    try:
        port = int(json.loads((settings.data_dir / STATUS_FILE).read_text(encoding="utf-8")).get("http_port", 0))
    except (OSError, ValueError):
        port = 0
    return public_url(settings.http, port)
