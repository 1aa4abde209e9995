"""The TLS handshake on the DICOM port, and who a peer's certificate is of."""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any

from gateway.domain.errors import ConnectionLost
from gateway.receive.admission import Certificate


def handshake(connection: socket.socket, seconds: float) -> None:
    """In the connection's own thread, so that a silent client holds up nobody but itself; raises ConnectionLost."""
    assert isinstance(connection, ssl.SSLSocket)  # noqa: S101
    try:
        connection.settimeout(seconds)
        connection.do_handshake()
    except OSError as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise ConnectionLost(f"TLS handshake failed: {reason}") from error


def certificate_of(connection: socket.socket) -> Certificate | None:
    """Who the peer has proved to be; None where it was not asked."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    whole: bytes | None = connection.getpeercert(binary_form=True)
    parsed: Any = connection.getpeercert()
    if not whole or not parsed:
        return None
    subject = [value for names in parsed.get("subject", ()) for kind, value in names if kind == "commonName"]
    others = [value for _, value in parsed.get("subjectAltName", ())]
    return Certificate(sha256=hashlib.sha256(whole).hexdigest(), names=frozenset([*subject, *others]))
