"""A site's file, changed in one place: all else stays as it was written, and what could not be read is never written."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.edit import drop_model, pin_model, set_model
from gateway.domain.errors import ConfigurationError
from gateway.settings import read_settings

DIGEST, OTHER = "a" * 64, "b" * 64

BLOCK = """\
# our site
dicom: {port: 11112}
models:
  # the first one
  brain:
    bundle: builtin:brain_mask  # ships with it
  other: {bundle: /srv/other}
# and rules
rules: []
"""
FLOW = "models: {brain: {bundle: builtin:brain_mask}, other: {bundle: /srv/other}}\n"
NONE = "# nothing yet\ndicom: {port: 11112}\n"
EMPTY = "models: {}  # none yet\n"


@pytest.fixture(params=[BLOCK, FLOW], ids=["block", "flow"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with two models."""
    file = tmp_path / "hilum.yaml"
    file.write_text(request.param)
    return file


def test_a_pin_is_written_and_changed(site: Path) -> None:
    """Once with the first pin, in place with the next; comments stay."""
    before = site.read_text()
    for digest in (DIGEST, OTHER):
        for name in ("brain", "other"):
            pin_model(site, name, digest)
            assert read_settings(site).models[name].digest == digest
    assert site.read_text().replace(f"digest: {OTHER}", "").split() != before
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in site.read_text().splitlines() if line.startswith("#")
    ]


@pytest.mark.parametrize("text", [BLOCK, FLOW, NONE, EMPTY])
def test_a_model_is_added_and_replaced(tmp_path: Path, text: str) -> None:
    """Wherever the file keeps its models, or none."""
    site = tmp_path / "hilum.yaml"
    site.write_text(text)
    before = set(read_settings(site).models)
    for digest in (DIGEST, OTHER):
        set_model(site, "lung nodules", "/srv/a b: c", digest)
        found = read_settings(site).models
        assert set(found) == before | {"lung nodules"}
        assert (found["lung nodules"].bundle, found["lung nodules"].digest) == ("/srv/a b: c", digest)
    assert all(line in site.read_text() for line in text.splitlines() if line.startswith("#"))


@pytest.mark.parametrize("order", [("brain", "other"), ("other", "brain")])
def test_models_are_taken_out_one_by_one(site: Path, order: tuple[str, str]) -> None:
    """The first, the last and the only one."""
    drop_model(site, order[0])
    assert set(read_settings(site).models) == {order[1]}
    drop_model(site, order[1])
    assert read_settings(site).models == {}


def test_a_model_that_a_rule_runs_stays(site: Path) -> None:
    """The file would not be valid without it, so it is not written."""
    text = site.read_text().replace("rules: []\n", "") + "rules: [{name: r, when: 'true', run: [brain]}]\n"
    site.write_text(text)
    with pytest.raises(ConfigurationError, match="no model is called 'brain'"):
        drop_model(site, "brain")
    assert site.read_text() == text


@pytest.mark.parametrize(
    "change", [lambda file: pin_model(file, "none", DIGEST), lambda file: drop_model(file, "none")]
)
def test_an_unknown_model_is_said_to_be(site: Path, change: object) -> None:
    """And the file stays."""
    before = site.read_text()
    with pytest.raises(ConfigurationError, match="no model is called 'none'"):
        change(site)  # type: ignore[operator]
    assert site.read_text() == before
