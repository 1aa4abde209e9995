"""Who may send to us: a pure decision over an association request (PS3.8 9.3.4, table 9-21)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Protocol

from gateway.domain.errors import InvalidIdentifier
from gateway.domain.ids import AETitle
from gateway.receive.settings import DicomSettings, Peer


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """The fields of an A-ASSOCIATE-RJ."""

    result: int  # 1 permanent, 2 transient
    source: int  # 1 service user, 2 ACSE, 3 presentation
    diagnostic: int
    reason: str  # for our log


CALLING_NOT_RECOGNIZED = Rejection(
    result=1, source=1, diagnostic=3, reason="calling AE title not recognized from there"
)
CALLED_NOT_RECOGNIZED = Rejection(result=1, source=1, diagnostic=7, reason="called AE title is not ours")
NO_SUCH_CONTEXT = Rejection(result=1, source=1, diagnostic=2, reason="application context name not supported")
NO_SUCH_VERSION = Rejection(result=1, source=2, diagnostic=2, reason="protocol version not supported")
NOT_NOW = Rejection(result=2, source=3, diagnostic=1, reason="temporary congestion")
TOO_MANY = Rejection(result=2, source=3, diagnostic=2, reason="local limit of associations exceeded")

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # PS3.7 annex A


class Asked(Protocol):
    """What of an A-ASSOCIATE-RQ is judged; texts as they came."""

    @property
    def calling(self) -> str:
        """Calling AE title."""
        ...

    @property
    def called(self) -> str:
        """Called AE title."""
        ...

    @property
    def protocol_version(self) -> int:
        """One bit for each version; the first is the only one there is (PS3.8 9.3.2)."""
        ...

    @property
    def application_context(self) -> str:
        """Application context name."""
        ...


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Who a peer has proved to be."""

    sha256: str  # fingerprint, 64 lower-case hexadecimal digits
    names: frozenset[str]  # common name of the subject, and its alternative names


def admit(asked: Asked, address: str, shown: Certificate | None, settings: DicomSettings) -> Rejection | None:
    """Judges a request; None admits it.

    A wrong calling AE title, and a right one from a wrong address or with another's certificate, get the same answer:
    it tells a prober nothing.
    """
    if not asked.protocol_version & 1:
        return NO_SUCH_VERSION
    if asked.application_context != APPLICATION_CONTEXT:
        return NO_SUCH_CONTEXT
    try:
        calling_title, called_title = AETitle(asked.calling), AETitle(asked.called)
        source = ipaddress.ip_address(address)
    except (InvalidIdentifier, ValueError):
        return CALLING_NOT_RECOGNIZED
    mapped = getattr(source, "ipv4_mapped", None)
    if not _may_send(calling_title, mapped or source, shown, settings.peers):
        return CALLING_NOT_RECOGNIZED
    if called_title != settings.ae_title:
        return CALLED_NOT_RECOGNIZED
    return None


def _may_send(
    calling: AETitle,
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    shown: Certificate | None,
    peers: tuple[Peer, ...],
) -> bool:
    if not peers:
        return source.is_loopback
    return any(
        peer.ae_title == calling and source in ipaddress.ip_network(peer.host) and _is_of(peer, shown) for peer in peers
    )


def _is_of(peer: Peer, shown: Certificate | None) -> bool:
    if peer.certificate_name is None and peer.certificate_fingerprint is None:
        return True
    if shown is None:
        return False
    named = peer.certificate_name is None or peer.certificate_name in shown.names
    return named and peer.certificate_fingerprint in (None, shown.sha256)


def is_peer(peer: Peer, calling: AETitle, address: str) -> bool:
    """Whether a sender that was admitted is this peer."""
    return peer.ae_title == calling and ipaddress.ip_address(address) in ipaddress.ip_network(peer.host)
