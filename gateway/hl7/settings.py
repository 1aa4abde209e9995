"""What a site may say about where HL7 messages come in."""

from __future__ import annotations

import ipaddress
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.units import parse_duration
from gateway.hl7.charset import codec_of
from gateway.hl7.framing import LARGEST_MESSAGE
from gateway.tls import ServerTls

Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("not an IP address or network: write 192.0.2.7 or 192.0.2.0/24") from None


def known_zone(text: str | None) -> str | None:
    """The name of a time zone, or ValueError."""
    try:
        return None if text is None else ZoneInfo(text).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not a time zone: write a name like Europe/Berlin") from None


def _readable(text: str) -> str:
    if not codec_of(text):
        raise ValueError("not a character set that can be read: write one of table 0211, such as UNICODE UTF-8")
    return text


class MllpListener(BaseModel):
    """A port that takes HL7 v2 messages over MLLP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 2575  # 0 lets the system choose
    peers: tuple[Annotated[str, AfterValidator(_network)], ...] = ()  # who may send; empty: this machine only
    tls: ServerTls | None = None
    charset: Annotated[str, AfterValidator(_readable)] = "UNICODE UTF-8"  # of senders whose MSH-18 names none
    largest_message: Annotated[int, Field(ge=1024)] = LARGEST_MESSAGE  # bytes
    message_timeout: Seconds = 60.0  # from the first byte of a message to its last, and for a sender to take an answer
    idle_timeout: Seconds = 24 * 3600.0  # of a connection on which no message comes
    max_connections: Annotated[int, Field(ge=1)] = 64

    def admits(self, address: str) -> bool:
        """Whether messages are taken from an IP address."""
        caller = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(caller, "ipv4_mapped", None)
        caller = mapped or caller
        if not self.peers:
            return caller.is_loopback
        networks = (ipaddress.ip_network(text) for text in self.peers)
        return any(caller.version == network.version and caller in network for network in networks)
