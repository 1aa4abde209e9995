"""What a site may say about receiving."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.domain.ids import AETitle
from gateway.domain.units import parse_duration
from gateway.tls import ClientTls, ServerTls

Title = Annotated[str, AfterValidator(AETitle)]
Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("not an IP address or network: write 192.0.2.7 or 192.0.2.0/24") from None


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError("not a SHA-256 fingerprint: write what `openssl x509 -noout -fingerprint -sha256` prints")
    return digits


class Node(BaseModel):
    """Where a peer itself listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    tls: ClientTls | None = None


class Peer(BaseModel):
    """Who may send."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: Title
    host: Annotated[str, AfterValidator(_network)]  # address or network it may call from
    certificate_name: str | None = None  # common or alternative name of the TLS certificate it must show
    certificate_fingerprint: Annotated[str, AfterValidator(_fingerprint)] | None = None  # and its fingerprint
    commitment: Node | None = None  # takes storage commitment reports whose association has ended


class DicomSettings(BaseModel):
    """The DICOM node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: Title = "HILUM"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 11112  # 0 lets the system choose
    peers: tuple[Peer, ...] = ()  # empty: any AE title, but from this machine only
    tls: ServerTls | None = None
    durability: Literal["full", "os"] = "full"  # os: an instance may be lost with the power, not with the process
    processes: Annotated[int, Field(ge=1, le=64)] | None = None  # that receive; None: one for every four cores
    max_associations: Annotated[int, Field(ge=1)] = 64
    max_associations_per_address: Annotated[int, Field(ge=1)] | None = None
    max_unassociated: Annotated[int, Field(ge=1)] = 256  # connections that have not asked for an association yet
    max_unassociated_per_address: Annotated[int, Field(ge=1)] = 64
    max_pdu: Annotated[int, Field(ge=4096, le=16 * 1024 * 1024)] = 131072  # bytes
    max_instance: Annotated[int, Field(ge=1)] = 4 * 1024**3  # bytes of one dataset
    max_inflated: Annotated[int, Field(ge=1)] = 1024**3  # bytes of a deflated dataset once it is inflated
    max_association_bytes: Annotated[int, Field(ge=1)] = 1024**4  # of all datasets of one association
    idle_timeout: Seconds = 60.0  # of a silent association
    pdu_timeout: Seconds = 30.0  # for one PDU, from its first byte to its last
    min_rate: Annotated[int, Field(ge=1)] = 4096  # bytes a second that a message brings at least, on average
    refuse_new_below: Annotated[float, Field(ge=0, le=1)] = (
        0.2  # free part of the disk under which new studies are refused
    )
    refuse_all_below: Annotated[float, Field(ge=0, le=1)] = 0.1  # and under which everything is

    @model_validator(mode="after")
    def _certificates_are_asked_for(self) -> Self:
        bound = any(peer.certificate_name or peer.certificate_fingerprint for peer in self.peers)
        if bound and (self.tls is None or self.tls.client_ca_file is None):
            raise ValueError("a peer is bound to a certificate, but none is asked for: set tls.client_ca_file")
        return self
