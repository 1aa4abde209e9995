"""HTTP to others: what every client of ours has in common, and the secrets that go with it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx2

from gateway.domain.errors import ConfigurationError


def open_client(
    tls: ssl.SSLContext,
    timeout: float,
    *,
    headers: Mapping[str, str] | None = None,
    basic: tuple[str, str] | None = None,
) -> httpx2.Client:
    """A client for one peer; ``timeout`` is seconds without taking or giving a byte.

    Images and reports of patients go where the configuration says and nowhere else: proxies of the environment are not
    asked, and nobody is followed elsewhere.
    """
    return httpx2.Client(
        auth=basic, headers=headers, verify=tls, trust_env=False, follow_redirects=False, timeout=timeout
    )


def read_secret(key: str, file: Path) -> str:
    """The secret in a file; raises ConfigurationError that names the key of the configuration, never the content."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{key} cannot be read: {getattr(error, 'strerror', 'not text')}") from error
