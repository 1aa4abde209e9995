"""What a site may say about HTTP."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.receive.settings import Seconds
from gateway.tls import ServerTls

MIB = 1 << 20


class HttpSettings(BaseModel):
    """Where DICOMweb and the viewer are served, and to whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080  # 0 lets the system choose
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/?#@\s]+/?)?$")] = ""  # as clients see it, behind a proxy
    tls: ServerTls | None = None
    tokens_file: Path | None = None  # where set, every request must bring one of its tokens
    insecure: bool = False  # listen beyond this machine without TLS and authentication
    viewer_dir: Path | None = None  # where OHIF is; without it, where `hilum viewer install` puts it
    max_connections: Annotated[int, Field(ge=1)] = 200
    max_uploads: Annotated[int, Field(ge=1)] = 8  # STOW-RS requests that are taken at once
    max_request_mib: Annotated[int, Field(ge=1)] = 16384  # of one request, unpacked
    max_parts: Annotated[int, Field(ge=1)] = 20000
    idle_timeout: Seconds = 30.0  # of a client that has begun and says nothing

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.insecure or is_loopback(self.host):
            return self
        if self.tls is None:
            raise ValueError(_unsafe(self.host, "without TLS: set http.tls"))
        if self.tokens_file is None and self.tls.client_ca_file is None:
            raise ValueError(_unsafe(self.host, "for anybody: set http.tokens_file or http.tls.client_ca_file"))
        return self


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own and nobody else's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _unsafe(host: str, how: str) -> str:
    return f"images of patients would be served on {host} {how}, keep to 127.0.0.1, or accept it with insecure: true"
