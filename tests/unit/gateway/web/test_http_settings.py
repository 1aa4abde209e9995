"""Boots that are not safe are refused, and what is in the tokens file is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.errors import ConfigurationError
from gateway.settings import parse_settings
from gateway.web.access import identify, read_tokens
from gateway.web.links import public_url, study_link, viewer_link
from gateway.web.problem import Refused
from gateway.web.settings import HttpSettings

_TLS = "tls: {cert_file: c, key_file: k}"
_MUTUAL = "tls: {cert_file: c, key_file: k, client_ca_file: a}"


@pytest.mark.parametrize(
    ("http", "safe"),
    [
        ("host: 127.0.0.1", True),
        ("host: '::1'", True),
        ("host: localhost", True),
        ("host: 0.0.0.0", False),
        ("host: '::'", False),
        ("host: 192.0.2.7", False),
        ("host: pacs.example", False),
        ("host: 0.0.0.0, tokens_file: t", False),
        (f"host: 0.0.0.0, {_TLS}", False),
        (f"host: 0.0.0.0, {_TLS}, tokens_file: t", True),
        (f"host: 0.0.0.0, {_MUTUAL}", True),
        ("host: 0.0.0.0, insecure: true", True),
    ],
)
def test_boots(http: str, safe: bool) -> None:
    """Beyond this machine only with TLS and with somebody to let in, unless the site says that it knows."""
    text = f"http: {{{http}}}"
    if safe:
        parse_settings(text)
        return
    with pytest.raises(ConfigurationError, match=r"configuration:1: http: images of patients would be served on"):
        parse_settings(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "holds no token"),
        ("VIEWER short", ":1: write a name, a blank and a token"),
        ("# who\nVIEWER", ":2: write"),
        ("A_NAME_THAT_IS_TOO_LONG 0123456789abcdef0123", ":1: the name must be an AE title"),
    ],
)
def test_tokens_files_that_are_none(tmp_path: Path, text: str, wrong: str) -> None:
    """One sentence with the line."""
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(ConfigurationError, match=wrong):
        read_tokens(tmp_path / "tokens")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", "Basic !!!", "Basic /w==", "Digest x", "Basic bm9jb2xvbg=="]
)
def test_nobody(tmp_path: Path, header: str) -> None:
    """401, whatever comes."""
    (tmp_path / "tokens").write_text("A 0123456789abcdef0123")
    with pytest.raises(Refused) as refused:
        identify(header, read_tokens(tmp_path / "tokens"))
    assert refused.value.status == 401


def test_links() -> None:
    """A job's link opens the study with the SEG on, or the SR where there is none."""
    base = public_url(HttpSettings(port=0), 1234)
    objects = [{"role": "sr", "series_uid": "1.3"}, {"role": "seg", "series_uid": "1.2"}]
    assert viewer_link(base, "1.1", objects) == (
        "http://127.0.0.1:1234/viewer/viewer?StudyInstanceUIDs=1.1&initialSeriesInstanceUID=1.2"
    )
    assert viewer_link(base, "1.1", objects[:1]).endswith("initialSeriesInstanceUID=1.3")
    assert viewer_link(base, "1.1", []) == study_link(base, "1.1")
    assert public_url(HttpSettings(public_url="https://hilum.example/")) == "https://hilum.example"
