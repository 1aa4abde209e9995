"""TLS on the DICOM port by the BCP 195 profile (PS3.15 B.12, RFC 9325), and who a peer's certificate is of."""

from __future__ import annotations

import hashlib
import socket
import ssl
from typing import Any

from gateway.domain.errors import ConfigurationError, ConnectionLost
from gateway.receive.admission import Certificate
from gateway.receive.settings import Tls

# TLS 1.2 with forward secrecy and authenticated encryption only; the suites of TLS 1.3 are all of that kind.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(tls: Tls) -> ssl.SSLContext:
    """What the port shows and asks for; raises ConfigurationError where a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_SUITES)
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise ConfigurationError(f"dicom.tls: a certificate or key file cannot be used: {error}") from error
    return context


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
