"""Who may do what over HTTP: tokens, and requests that a browser was led to make by somebody else's page."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from gateway.domain.errors import ConfigurationError, InvalidIdentifier
from gateway.domain.ids import AETitle
from gateway.web.problem import Refused
from gateway.web.settings import HttpSettings, is_loopback

ANYBODY = AETitle("STOW-RS")
"""How instances are marked that came in by STOW-RS where nobody has to say who he is."""

_SHORTEST_TOKEN = 20  # characters
_CHALLENGE = 'Bearer realm="Hilum", Basic realm="Hilum: any name, token as password", charset="UTF-8"'
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

Tokens = Mapping[str, AETitle]  # SHA-256 of a token -> whose it is


def read_tokens(file: Path | None) -> Tokens | None:
    """The tokens of a site: lines of a name and a token, `#` begins a comment. Raises ConfigurationError."""
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"http.tokens_file: {file} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}"
        ) from error
    tokens: dict[str, AETitle] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or len(words[1]) < _SHORTEST_TOKEN:
            form = f"a name, a blank and a token of at least {_SHORTEST_TOKEN} characters"
            raise ConfigurationError(f"http.tokens_file: {file}:{number}: write {form}")
        try:
            tokens[_digest(words[1])] = AETitle(words[0])
        except InvalidIdentifier:
            raise ConfigurationError(f"http.tokens_file: {file}:{number}: the name must be an AE title") from None
    if not tokens:
        raise ConfigurationError(f"http.tokens_file: {file} holds no token: nobody could be let in")
    return tokens


def identify(authorization: str, tokens: Tokens | None) -> AETitle:
    """Who a request is from: by a bearer token, or by Basic with the token as password. Raises Refused (401)."""
    if tokens is None:
        return ANYBODY
    scheme, _, value = authorization.strip().partition(" ")
    token = value.strip() if scheme.lower() == "bearer" else _password(value) if scheme.lower() == "basic" else ""
    # A digest is looked up, so that the time it takes says nothing about the token.
    name = tokens.get(_digest(token)) if token else None
    if name is None:
        raise Refused(HTTPStatus.UNAUTHORIZED, "a token is needed (http.tokens_file)", {"WWW-Authenticate": _CHALLENGE})
    return name


def check_origin(method: str, headers: Mapping[str, str], settings: HttpSettings) -> None:
    """Refuses what another site's page makes a browser do: a write from elsewhere, and any name for this machine.

    A service for this machine only answers to its names only, or a page of anybody's could have its own name resolve to
    127.0.0.1 and read what is here (DNS rebinding).
    """
    host = headers.get("host", "")
    if is_loopback(settings.host) and not settings.public_url and not is_loopback(_host_name(host)):
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this service has another name (http.public_url)")
    site = headers.get("sec-fetch-site", "none")
    if method not in _SAFE_METHODS and site not in ("none", "same-origin"):
        raise Refused(HTTPStatus.FORBIDDEN, "another site's page may not write here")


def _host_name(host: str) -> str:
    return host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _password(value: str) -> str:
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
