"""What a site may say about receiving."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.ids import AETitle
from gateway.domain.units import parse_duration

Title = Annotated[str, AfterValidator(AETitle)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("not an IP address or network: write 192.0.2.7 or 192.0.2.0/24") from None


class Peer(BaseModel):
    """Who may send."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: Title
    host: Annotated[str, AfterValidator(_network)]  # address or network it may call from


class Tls(BaseModel):
    """TLS on the DICOM port (PS3.15 B.12)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None  # where set, a sender must show a certificate of this authority


class DicomSettings(BaseModel):
    """The DICOM node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: Title = "HILUM"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 11112  # 0 lets the system choose
    peers: tuple[Peer, ...] = ()  # empty: any AE title, but from this machine only
    tls: Tls | None = None
    max_associations: Annotated[int, Field(ge=1)] = 64
    max_pdu: Annotated[int, Field(ge=4096, le=16 * 1024 * 1024)] = 131072  # bytes
    idle_timeout: Seconds = 60.0  # of a silent association
    refuse_new_below: Annotated[float, Field(ge=0, le=1)] = (
        0.2  # free part of the disk under which new studies are refused
    )
    refuse_all_below: Annotated[float, Field(ge=0, le=1)] = 0.1  # and under which everything is
