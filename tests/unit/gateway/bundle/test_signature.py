"""A bundle's signature: made and believed with the right key on the files that were signed, and else not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from gateway.bootstrap import make_models
from gateway.bundle.files import SIGNATURE, bundle_digest
from gateway.bundle.signature import check_signature, sign_bundle
from gateway.commands.lifecycle import add, sign
from gateway.domain.errors import BundleInvalid, ConfigurationError, HilumError
from gateway.settings import parse_settings
from tests.support.bundles import write_bundle


def keys(directory: Path, name: str, algorithm: str = "ed25519") -> tuple[Path, Path]:
    """A private and a public key, made by OpenSSL."""
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def test_what_a_site_that_trusts_a_key_takes(tmp_path: Path) -> None:
    """Signed: yes, at each start. A file changed, another's key, a forged or no signature: no, each with its reason."""
    private, public = keys(tmp_path, "vendor")
    other, _ = keys(tmp_path, "stranger")
    bundle = write_bundle(tmp_path / "bundle")
    settings = parse_settings(f"models: {{m: {{bundle: {bundle}}}}}\nmodels_trust: {{keys: [{public}]}}\n")

    def refused(match: str) -> None:
        with pytest.raises(ConfigurationError, match=match):
            make_models(settings)

    refused("not signed")
    before = bundle_digest(bundle)
    sign(bundle, private)
    assert bundle_digest(bundle) == before
    assert list(make_models(settings)) == ["m"]
    script = bundle / "scripts/network.py"
    text = script.read_text()
    script.write_text(text + "\n")
    refused("changed after signing")
    script.write_text(text)
    sign_bundle(bundle, before, other)
    refused("not among models_trust.keys")
    forged = json.loads((bundle / SIGNATURE).read_text())
    sign(bundle, private)
    own = json.loads((bundle / SIGNATURE).read_text())
    (bundle / SIGNATURE).write_text(json.dumps(own | {"signature": forged["signature"]}))
    refused("changed after signing")
    (bundle / SIGNATURE).write_text("{}")
    refused("no signature")


def test_admission_asks_too(tmp_path: Path) -> None:
    """`hilum models add` copies nothing that is not signed."""
    _, public = keys(tmp_path, "vendor")
    site = tmp_path / "hilum.yaml"
    site.write_text(f"data_dir: {tmp_path / 'data'}\nmodels_trust: {{keys: [{public}]}}\n")
    with pytest.raises(BundleInvalid, match="not signed"):
        add(site, write_bundle(tmp_path / "bundle"), None)
    assert not (tmp_path / "data/bundles").exists()


def test_signatures_may_be_optional(tmp_path: Path) -> None:
    """Without `require` what is not signed passes, and what is signed wrongly does not."""
    private, public = keys(tmp_path, "vendor")
    bundle = write_bundle(tmp_path / "bundle")
    check_signature(bundle, "0" * 64, [public], require=False)
    sign_bundle(bundle, "1" * 64, private)
    with pytest.raises(BundleInvalid):
        check_signature(bundle, "0" * 64, [public], require=False)


def test_keys_that_are_none(tmp_path: Path) -> None:
    """Another algorithm, a public key to sign with, no file: one sentence; `require` without keys cannot be."""
    private, public = keys(tmp_path, "rsa", "rsa")
    _, good = keys(tmp_path, "good")
    bundle = write_bundle(tmp_path / "bundle")
    for key in (private, good, tmp_path / "none"):
        with pytest.raises(HilumError, match="is no "):
            sign_bundle(bundle, "0" * 64, key)
    (bundle / SIGNATURE).write_text(json.dumps({"key": "x", "signature": ""}))
    with pytest.raises(ConfigurationError, match="no Ed25519 key"):
        check_signature(bundle, "0" * 64, [public], require=True)
    with pytest.raises(ConfigurationError, match="require needs keys"):
        parse_settings("models_trust: {require: true}\n")
