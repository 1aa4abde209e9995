"""Small changes to a site's hilum.yaml that leave all else in it, comments too, as it was written."""

from __future__ import annotations

from pathlib import Path

import yaml

from gateway.domain.errors import ConfigurationError
from gateway.settings import parse_settings


def set_model(file: Path, name: str, bundle: str, digest: str) -> None:
    """Puts a model under `models`, or changes the one that is there; raises ConfigurationError and changes nothing."""
    text = _read(file)
    entry = f"{json_text(name)}: {{bundle: {json_text(bundle)}, digest: {digest}}}"
    models = _value(yaml.compose(text), "models")
    if models is None:
        changed = text.rstrip("\n") + f"\n\nmodels:\n  {entry}\n"
    elif _key(models, name) is not None:
        changed = _insert(_without(text, models, name), name, entry)
    else:
        changed = _insert(text, name, entry)
    _write(file, changed)


def pin_model(file: Path, name: str, digest: str) -> None:
    """Writes the digest of a model that is configured; raises ConfigurationError."""
    text = _read(file)
    entry = _value(_value(yaml.compose(text), "models"), name)
    if not isinstance(entry, yaml.MappingNode) or not entry.value:
        raise ConfigurationError(f"{file}: no model is called {name!r}")
    old = _value(entry, "digest")
    if old is not None:
        changed = text[: old.start_mark.index] + digest + text[old.end_mark.index :]
    else:
        start = entry.value[0][0].start_mark
        gap = ", " if entry.flow_style else "\n" + " " * start.column
        changed = text[: start.index] + f"digest: {digest}{gap}" + text[start.index :]
    _write(file, changed)


def drop_model(file: Path, name: str) -> None:
    """Takes a model out; raises ConfigurationError where there is none, or a rule still runs it."""
    text = _read(file)
    models = _value(yaml.compose(text), "models")
    if models is None or _key(models, name) is None:
        raise ConfigurationError(f"{file}: no model is called {name!r}")
    _write(file, _without(text, models, name))


def json_text(value: str) -> str:
    """As YAML reads it back, in quotes only where it needs them."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _insert(text: str, name: str, entry: str) -> str:
    models = _value(yaml.compose(text), "models")
    if not isinstance(models, yaml.MappingNode) or not models.value:
        return _replace_empty(text, entry)
    start = models.value[0][0].start_mark
    gap = ", " if models.flow_style else "\n" + " " * start.column
    return text[: start.index] + entry + gap + text[start.index :]


def _replace_empty(text: str, entry: str) -> str:
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101 - it has `models`
    key, value = next(pair for pair in root.value if pair[0].value == "models")
    return text[: key.start_mark.index] + f"models:\n  {entry}" + text[value.end_mark.index :]


def _without(text: str, models: yaml.Node, name: str) -> str:
    """The text without one entry, and without the line or the comma that held it."""
    assert isinstance(models, yaml.MappingNode)  # noqa: S101
    pairs = models.value
    at = next(index for index, (key, _) in enumerate(pairs) if key.value == name)
    if len(pairs) == 1:
        empty = _last(models)
        return (
            text[: pairs[0][0].start_mark.index] + "{}" + text[empty:]
            if not models.flow_style
            else (text[: models.start_mark.index] + "{}" + text[models.end_mark.index :])
        )
    start, end = pairs[at][0].start_mark.index, _last(pairs[at][1])
    if at + 1 < len(pairs):
        return text[:start] + text[pairs[at + 1][0].start_mark.index :]
    before = _last(pairs[at - 1][1])
    return text[:before] + text[end:]


def _last(node: yaml.Node) -> int:
    """Where a node's own text ends: a block's mark lies behind the comments that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _last(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _last(node.value[-1])
    return int(node.end_mark.index)


def _value(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _key(node: yaml.Node, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((key for key, _ in node.value if key.value == name), None)


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
    parse_settings(text, str(file))
    return text


def _write(file: Path, text: str) -> None:
    """Only what can be read again takes the place of what was there."""
    parse_settings(text, str(file))
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.chmod(file.stat().st_mode & 0o777)
        partial.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be written: {error.strerror}") from error
