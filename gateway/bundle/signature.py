"""Who vouches for a bundle: an Ed25519 signature (RFC 8032) over its digest, in a file beside its manifest."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gateway.bundle.files import SIGNATURE
from gateway.domain.errors import BundleInvalid, ConfigurationError

_LARGEST = 4096  # bytes of a signature file


def sign_bundle(bundle: Path, digest: str, key: Path) -> Path:
    """Writes the signature of a bundle with this digest; raises ConfigurationError for a key that is none."""
    try:
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{key} is no private key without password in PEM: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"{key} is no Ed25519 key: make one with `openssl genpkey -algorithm ed25519`")
    signature = base64.b64encode(private.sign(_message(digest))).decode()
    file = bundle / SIGNATURE
    file.write_text(json.dumps({"key": _name(private.public_key()), "signature": signature}) + "\n", encoding="utf-8")
    return file


def check_signature(bundle: Path, digest: str, keys: Sequence[Path], *, require: bool) -> None:
    """Raises BundleInvalid where a bundle must be signed and is not, or not by a trusted key on this digest."""
    file = bundle / SIGNATURE
    if not file.exists():
        if require:
            raise BundleInvalid(f"{bundle.name} is not signed, and models_trust requires it", code="not_signed")
        return
    try:
        with file.open("rb") as stream:
            found = json.loads(stream.read(_LARGEST))
        signature, name = base64.b64decode(found["signature"], validate=True), str(found["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleInvalid(f"{bundle.name}/{SIGNATURE} is no signature", code="bad_signature") from error
    trusted = {_name(key): key for key in map(read_key, keys)}
    if name not in trusted:
        raise BundleInvalid(
            f"{bundle.name} is signed by key {name[:64]}, which is not among models_trust.keys", code="untrusted_key"
        )
    try:
        trusted[name].verify(signature, _message(digest))
    except InvalidSignature:
        raise BundleInvalid(
            f"the signature of {bundle.name} is not that of the files that are there: they were changed after signing",
            code="bad_signature",
        ) from None


def read_key(file: Path) -> Ed25519PublicKey:
    """A trusted public key; raises ConfigurationError."""
    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"models_trust.keys: {file} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"models_trust.keys: {file} is no Ed25519 key")
    return key


def _message(digest: str) -> bytes:
    """What is signed: nothing that anything else could have been signed as."""
    return f"hilum bundle 1\n{digest}\n".encode("ascii")


def _name(key: Ed25519PublicKey) -> str:
    """By which people tell keys apart: the beginning of the SHA-256 of its bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
