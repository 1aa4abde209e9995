"""A certificate for 127.0.0.1 that signs itself, made by the openssl program."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path

    def server_context(self, oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
        """For a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = oldest
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificate(directory: Path, address: str = "127.0.0.1") -> Certificate:
    """Valid for a day, for one IP address."""
    files = Certificate(directory / f"{address}.pem", directory / f"{address}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=peer", "-addext", f"subjectAltName=IP:{address}"]
    subprocess.run([*command, "-keyout", files.key, "-out", files.certificate], check=True, capture_output=True)
    return files
