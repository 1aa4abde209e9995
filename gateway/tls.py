"""TLS: one block of settings for each side of a connection, and the contexts made from them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from gateway.domain.errors import ConfigurationError

# TLS 1.2 with forward secrecy and authenticated encryption only; the suites of TLS 1.3 are all of that kind.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ClientTls(BaseModel):
    """TLS on outgoing connections (PS3.15 B.12, BCP 195): 1.2 or newer, the peer's name and certificate are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: Path | None = None  # authority of the peer's certificate; the system's authorities where there is none
    cert_file: Path | None = None  # our certificate, for a peer that wants one
    key_file: Path | None = None  # its private key, where it is not in cert_file

    @model_validator(mode="after")
    def _key_has_certificate(self) -> Self:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs cert_file")
        return self


class ServerTls(BaseModel):
    """TLS on a port of ours by the BCP 195 profile (PS3.15 B.12, RFC 9325): 1.2 or newer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None  # where set, a sender must show a certificate of this authority


def server_context(tls: ServerTls, where: str) -> ssl.SSLContext:
    """A context for a port; raises ConfigurationError where a file cannot be used, with the key it stands under."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_SUITES)
    _load_chain(context, tls.cert_file, tls.key_file, where)
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except OSError as error:
            raise _unusable(f"{where}.client_ca_file", tls.client_ca_file, error) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """A context for connections to one peer; raises ConfigurationError where a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise _unusable("tls.ca_file", tls.ca_file, error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert_file:
        _load_chain(context, tls.cert_file, tls.key_file, "tls")
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path | None, where: str) -> None:
    """Names the file that is wrong, and asks nobody for a passphrase: a service would stand still at its start."""
    names = {"cert_file": certificate, **({"key_file": key} if key else {})}
    for name, file in names.items():
        try:
            is_certificate = b"-----BEGIN CERTIFICATE" in file.read_bytes()
        except OSError as error:
            raise _unusable(f"{where}.{name}", file, error) from error
        if name == "cert_file" and not is_certificate:
            raise ConfigurationError(f"{where}.{name}: {file} cannot be used: no certificate in PEM")
    private = next(reversed(names))

    def refuse() -> str:
        message = f"{where}.{private}: {names[private]}: the key is behind a passphrase; write it without one"
        raise ConfigurationError(message)

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except OSError as error:
        raise _unusable(f"{where}.{private}", names[private], error) from error


def _unusable(name: str, file: Path | None, error: OSError) -> ConfigurationError:
    why = error.strerror or "unknown error"
    if isinstance(error, ssl.SSLError):
        why = (error.reason or "no key in PEM").replace("_", " ").lower()
    return ConfigurationError(f"{name}: {file} cannot be used: {why}")
