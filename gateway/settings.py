"""`hilum.yaml` of a site: composes the settings that each stage defines, and says precisely what is wrong with a file."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.domain.errors import ConfigurationError
from gateway.hold.settings import Hold
from gateway.receive.settings import DicomSettings
from gateway.report.settings import Hl7Destination
from gateway.route.settings import ModelEntry, Name, Rule
from gateway.submit.settings import BrokerSettings, JobSettings


class HttpSettings(BaseModel):
    """Where pages and DICOMweb will be served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080


class LedgerSettings(BaseModel):
    """Where the ledger is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern=r"^(sqlite|postgresql\+psycopg://.+)$")] = "sqlite"


class SpoolSettings(BaseModel):
    """Where files are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Literal["local"] = "local"


class SiteRule(Rule):
    """A rule with its way of waiting."""

    hold: Hold = Hold()


Destination = Annotated[DicomDestination | DicomwebDestination | Hl7Destination, Field(discriminator="kind")]


class Settings(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path("./data")
    dicom: DicomSettings = DicomSettings()
    http: HttpSettings = HttpSettings()
    ledger: LedgerSettings = LedgerSettings()
    broker: BrokerSettings = BrokerSettings()
    jobs: JobSettings = JobSettings()
    spool: SpoolSettings = SpoolSettings()
    hold: Hold = Hold()  # for studies that no rule wants yet
    destinations: dict[Name, Destination] = {}
    models: dict[Name, ModelEntry] = {}
    rules: tuple[SiteRule, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for number, rule in enumerate(self.rules):
            for model in rule.run:
                _known("model", model, self.models, f"rules.{number}.run")
            for destination in rule.deliver:
                _known("destination", destination, self.destinations, f"rules.{number}.deliver")
        return self

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return f"sqlite:///{self.data_dir / 'ledger.db'}" if self.ledger.url == "sqlite" else self.ledger.url


class _UnknownName(ValueError):
    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.where = where


def _known(kind: str, name: str, names: dict[str, Any], where: str) -> None:
    if name not in names:
        raise _UnknownName(where, f"no {kind} is called {name!r}{_suggest(name, names)}")


def _suggest(word: str, words: Any) -> str:
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read_settings(file: Path | None) -> Settings:
    """Reads and checks a configuration file; no file means all defaults.

    Relative paths in it are relative to the file. Raises ConfigurationError with line, key, and what to write instead.
    """
    if file is None:
        return _absolute(Settings(), Path.cwd())
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}") from error
    return _absolute(parse_settings(text, str(file)), file.resolve().parent)


def parse_settings(text: str, name: str = "configuration") -> Settings:
    """Checks the text of a configuration file; raises ConfigurationError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{name}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    try:
        return Settings.model_validate({} if data is None else data)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentence(name, root, item) for item in error.errors())) from error


def _sentence(name: str, root: yaml.Node | None, item: Any) -> str:
    cause = item.get("ctx", {}).get("error")
    path = tuple(cause.where.split(".")) if isinstance(cause, _UnknownName) else _yaml_path(item["loc"])
    line, siblings = _locate(root, path)
    key = ".".join(str(part) for part in path) or "the file"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = f"unknown key{_suggest(str(path[-1]), _allowed(path[:-1]) - siblings)}"
    return f"{name}:{line}: {key}: {message}"


def _yaml_path(location: tuple[Any, ...]) -> tuple[Any, ...]:
    # pydantic names the chosen member of a discriminated union inside the path; the file does not.
    if location[:1] == ("destinations",) and len(location) > 2 and location[2] in ("dicom", "dicomweb", "hl7"):
        return location[:2] + location[3:]
    return location


def _locate(node: yaml.Node | None, path: tuple[Any, ...]) -> tuple[int, set[str]]:
    """Line of the last part of a path that is in the file, and the keys beside it."""
    line, siblings = 1, set[str]()
    for part in path:
        if isinstance(node, yaml.MappingNode):
            siblings = {key.value for key, _ in node.value}
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
    return line, siblings


def _allowed(path: tuple[Any, ...]) -> set[str]:
    """The keys that may stand at a place of the file."""
    sections: dict[str, type[BaseModel]] = {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    if not path:
        return set(Settings.model_fields)
    if path[0] == "rules":
        return set(Hold.model_fields if path[-1] == "hold" else SiteRule.model_fields)
    if path[0] == "destinations":
        kinds = (DicomDestination, DicomwebDestination, Hl7Destination)
        return {key for kind in kinds for key in kind.model_fields}
    section = sections.get(str(path[0]))
    return set(section.model_fields) if section else set()


def _absolute(settings: Settings, base: Path) -> Settings:
    """Relative paths are relative to the file they stand in, wherever the process was started."""
    placed: Settings = _placed(settings, base)
    models = {
        name: entry
        if entry.bundle.startswith("builtin:")
        else ModelEntry(bundle=str(_placed(Path(entry.bundle), base)))
        for name, entry in settings.models.items()
    }
    return placed.model_copy(update={"models": models})


def _placed(value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return (base / value.expanduser()).resolve()
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _placed(getattr(value, name), base) for name in type(value).model_fields})
    if isinstance(value, dict):
        return {key: _placed(item, base) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_placed(item, base) for item in value)
    return value
