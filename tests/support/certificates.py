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


class Authority:
    """An authority, a server and two clients it vouches for, one it vouched for until yesterday, and a stranger."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._run("req", "-x509", *self._key("ca"), "-out", "ca.pem", "-days", "1", "-subj", "/CN=authority")
        for name, days in (("server", "1"), ("ct1", "1"), ("ct2", "1"), ("expired", "-1")):
            self._run("req", *self._key(name), "-out", f"{name}.csr", "-subj", f"/O=Hospital/CN={name}")
            signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days, "-out", f"{name}.pem")
            self._run("x509", "-req", "-in", f"{name}.csr", *signed)
        self._run("req", "-x509", *self._key("stranger"), "-out", "stranger.pem", "-days", "1", "-subj", "/CN=ct1")

    def server_settings(self) -> dict[str, str]:
        """`dicom.tls` with client certificates."""
        files = {"cert_file": "server.pem", "key_file": "server.key", "client_ca_file": "ca.pem"}
        return {key: str(self._directory / name) for key, name in files.items()}

    def client(self, name: str | None) -> ssl.SSLContext:
        """A client that shows a certificate, or none."""
        context = ssl.create_default_context(cafile=str(self._directory / "ca.pem"))
        context.check_hostname = False
        if name is not None:
            context.load_cert_chain(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        return context

    def fingerprint(self, name: str) -> str:
        """As openssl prints it."""
        command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", f"{name}.pem"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=self._directory)
        return done.stdout.strip().split("=")[1]

    def _key(self, name: str) -> tuple[str, ...]:
        return ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key")

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self._directory)
