"""Which port the web process of `hilum serve` takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands.web import WebProcess
from gateway.domain.errors import ServiceUnavailable
from gateway.settings import read_settings
from gateway.web.settings import HttpSettings


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


def _settings(tmp_path: Path, text: str) -> HttpSettings:
    (tmp_path / "hilum.yaml").write_text(text)
    return read_settings(tmp_path / "hilum.yaml").http


def test_the_usual_port_is_not_insisted_on(taken: int) -> None:
    """Nobody has asked for it: another one will do."""
    web = WebProcess(None, HttpSettings.model_construct(_fields_set=set(), port=taken))
    try:
        assert web.port not in (0, taken)
    finally:
        web.stop()


def test_a_port_that_was_asked_for_is(tmp_path: Path, taken: int) -> None:
    """The site has written it down, and others rely on it."""
    with pytest.raises(ServiceUnavailable, match=r"set http\.port"):
        WebProcess(None, _settings(tmp_path, f"http: {{port: {taken}}}"))


def test_reading_a_file_does_not_ask_for_what_it_does_not_say(tmp_path: Path) -> None:
    """A file's paths are made absolute, and nothing is written down by that."""
    assert "port" not in _settings(tmp_path, "http: {idle_timeout: 5s, tokens_file: t}").model_fields_set
    assert "port" in _settings(tmp_path, "http: {port: 8080}").model_fields_set
