"""Who may send to us: a pure decision over an association request (PS3.8 9.3.4, table 9-21)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

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
NOT_NOW = Rejection(result=2, source=3, diagnostic=1, reason="temporary congestion")


def admit(calling: str, called: str, address: str, settings: DicomSettings) -> Rejection | None:
    """Judges a request; None admits it.

    A wrong calling AE title and a right one from a wrong address get the same answer: it tells a prober nothing.
    """
    try:
        calling_title, called_title = AETitle(calling), AETitle(called)
        source = ipaddress.ip_address(address)
    except (InvalidIdentifier, ValueError):
        return CALLING_NOT_RECOGNIZED
    mapped = getattr(source, "ipv4_mapped", None)
    if not _may_send(calling_title, mapped or source, settings.peers):
        return CALLING_NOT_RECOGNIZED
    if called_title != settings.ae_title:
        return CALLED_NOT_RECOGNIZED
    return None


def _may_send(calling: AETitle, source: ipaddress.IPv4Address | ipaddress.IPv6Address, peers: tuple[Peer, ...]) -> bool:
    if not peers:
        return source.is_loopback
    return any(peer.ae_title == calling and source in ipaddress.ip_network(peer.host) for peer in peers)
