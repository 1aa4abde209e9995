"""`hilum.yaml` of a site: composes the settings that each stage defines, and says precisely what is wrong with a file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.domain.errors import ConfigurationError
from gateway.hold.settings import Hold, Query, RuleHold
from gateway.orders.settings import OrderSettings
from gateway.receive.settings import DicomSettings, Peer
from gateway.report.settings import EhrDestination, FhirDestination, Hl7Destination
from gateway.route.rules import compile_expression
from gateway.route.settings import ModelEntry, ModelsTrust, Name, Rule
from gateway.submit.settings import BrokerSettings, JobSettings
from gateway.web.settings import HttpSettings

_KINDS = ("dicom", "dicomweb", "hl7", "fhir")
_DEEPEST = 20  # levels of the file that are looked at; the deepest key has 4


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

    hold: RuleHold = RuleHold()


class SitePeer(Peer):
    """A sender, and whom to ask about what it sends."""

    query: Query | None = None


class SiteDicom(DicomSettings):
    """The DICOM node among its peers."""

    peers: tuple[SitePeer, ...] = ()


Destination = Annotated[
    DicomDestination | DicomwebDestination | Hl7Destination | FhirDestination, Field(discriminator="kind")
]


class Settings(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path("./data")
    dicom: SiteDicom = SiteDicom()
    http: HttpSettings = HttpSettings()
    ledger: LedgerSettings = LedgerSettings()
    broker: BrokerSettings = BrokerSettings()
    jobs: JobSettings = JobSettings()
    spool: SpoolSettings = SpoolSettings()
    hl7: OrderSettings | None = None  # messages from the EHR; none are taken where there is no such block
    hold: Hold = Hold()  # for studies that no rule wants yet
    destinations: dict[Name, Destination] = {}
    models: dict[Name, ModelEntry] = {}
    models_trust: ModelsTrust | None = None  # signatures are not looked at where there is no such block
    rules: tuple[SiteRule, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for number, rule in enumerate(self.rules):
            for model in rule.run:
                _known("model", model, self.models, f"rules.{number}.run")
            for destination in rule.deliver:
                _known("destination", destination, self.destinations, f"rules.{number}.deliver")
        return self

    @model_validator(mode="after")
    def _rules_can_be_told_apart(self) -> Self:
        names = [rule.name for rule in self.rules]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise _Misplaced(f"rules.{number}.name", f"another rule is called {name!r}: give each its own name")
        return self

    @model_validator(mode="after")
    def _reports_find_the_node(self) -> Self:
        for name, item in self.destinations.items():
            if isinstance(item, DicomDestination) and item.verify == "commitment":
                title = item.calling_ae_title or self.dicom.ae_title
                if title != self.dicom.ae_title:
                    where = f"destinations.{name}.calling_ae_title"
                    message = (
                        f"with verify: commitment it must be {self.dicom.ae_title!r}, or be left out: "
                        "the report comes back to the title that asked"
                    )
                    raise _Misplaced(where, message)
        return self

    @model_validator(mode="after")
    def _deferred_answers_have_a_port(self) -> Self:
        for name, item in self.destinations.items():
            if isinstance(item, Hl7Destination) and item.acknowledgement == "deferred" and self.hl7 is None:
                message = "the application's answer may come to our own port: add the block hl7 with that port"
                raise _Misplaced(f"destinations.{name}.acknowledgement", message)
        return self

    @model_validator(mode="after")
    def _conditions_compile(self) -> Self:
        for number, rule in enumerate(self.rules):
            _compiles(rule.when, f"rules.{number}.when")
            for place, text in enumerate(rule.hold.require):
                _compiles(text, f"rules.{number}.hold.require.{place}")
        return self

    @property
    def forms(self) -> dict[str, frozenset[str]]:
        """Destination -> roles of results that are only written because it may need them."""
        return {name: item.forms for name, item in self.destinations.items() if not isinstance(item, EhrDestination)}

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return f"sqlite:///{self.data_dir / 'ledger.db'}" if self.ledger.url == "sqlite" else self.ledger.url


class _Misplaced(ValueError):
    """Says itself where in the file it belongs."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message)
        self.where = where


def _compiles(text: str, where: str) -> None:
    try:
        compile_expression(text, where)
    except ConfigurationError as error:
        raise _Misplaced(where, error.message.removeprefix(f"{where}: ")) from error


def _known(kind: str, name: str, names: dict[str, Any], where: str) -> None:
    if name not in names:
        raise _Misplaced(where, f"no {kind} is called {name!r}{_suggest(name, names)}")


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
        raise ConfigurationError(f"{file}: cannot be read: {getattr(error, 'strerror', 'not UTF-8')}") from error
    return _absolute(parse_settings(text, str(file)), file.resolve().parent)


def parse_settings(text: str, name: str = "configuration") -> Settings:
    """Checks the text of a configuration file; raises ConfigurationError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigurationError(f"{name}{line}: not valid YAML: {problem}") from error
    except (ValueError, RecursionError) as error:  # 2026-13-45, and ten thousand brackets
        problem = "too many levels" if isinstance(error, RecursionError) else f"a date that is none ({error}); quote it"
        raise ConfigurationError(f"{name}: not valid YAML: {problem}") from error
    for line_number, key in _doubled(root):
        raise ConfigurationError(f"{name}:{line_number}: {key}: stands twice in the same place; keep one")
    try:
        return Settings.model_validate({} if data is None else data)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentence(name, root, item) for item in error.errors())) from error


def _sentence(name: str, root: yaml.Node | None, item: Any) -> str:
    cause = item.get("ctx", {}).get("error")
    path = tuple(cause.where.split(".")) if isinstance(cause, _Misplaced) else _yaml_path(item["loc"])
    line, siblings = _locate(root, path)
    key = ".".join(str(part) for part in path) or "the file"
    if item["type"] == "extra_forbidden":
        message = f"unknown key{_suggest(str(path[-1]), _allowed(path[:-1]) - siblings)}"
    else:
        message = _message(item, path)
    return f"{name}:{line}: {key}: {message}"


_FIXES = {
    "missing": "is missing",
    "model_type": "must hold keys, each with its value",
    "model_attributes_type": "must hold keys, each with its value",
    "dict_type": "must hold names, each with its value",
    "tuple_type": "must be a list: write [one, another]",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_type": 'must be a text: put it in quotes, "like this"',
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path",
    "invalid_key": 'must be a text: put it in quotes, "like this"',
    "union_tag_invalid": "kind must be dicom, dicomweb, hl7 or fhir",
    "union_tag_not_found": "kind is missing: write kind: dicom, dicomweb, hl7 or fhir",
}

_FORMS = {
    ("dicom", "url"): "write http://HOST:PORT/PATH without user, password and query",
    ("http", "public_url"): "write https://HOST, as clients see it",
    ("ledger", "url"): "write sqlite, or postgresql+psycopg://USER@HOST/DATABASE",
    ("broker", "url"): "write embedded, or redis://HOST:6379/0",
    ("destinations", "url"): "write http://HOST:PORT/PATH without user, password and query",
}


def _message(item: Any, path: tuple[Any, ...]) -> str:
    if item["type"] == "string_pattern_mismatch":
        name = "a name is letters, digits, blanks and . _ - (64 at most), and begins with a letter or digit"
        return _FORMS.get((path[0], path[-1]), name)
    said = str(item["msg"]).removeprefix("Value error, ")
    return _FIXES.get(item["type"]) or said.replace("Input should be", "must be")


def _yaml_path(location: tuple[Any, ...]) -> tuple[Any, ...]:
    # pydantic names the chosen member of a discriminated union inside the path; the file does not.
    if location[:1] == ("destinations",) and len(location) > 2 and location[2] in _KINDS:
        location = location[:2] + location[3:]
    if location[3:4] == ("query",) and location[4:5] in (("dimse",), ("web",)):
        location = location[:4] + location[5:]
    return location[:-1] if location[-1:] == ("[key]",) else location


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


def _doubled(node: yaml.Node | None, depth: int = 0) -> Iterator[tuple[int, str]]:
    """Line and name of keys that stand twice in one place: YAML's reader would quietly take the last."""
    if isinstance(node, yaml.MappingNode) and depth < _DEEPEST:
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, str(key.value)
            seen.add(str(key.value))
            yield from _doubled(value, depth + 1)
    elif isinstance(node, yaml.SequenceNode) and depth < _DEEPEST:
        for value in node.value:
            yield from _doubled(value, depth + 1)


def _allowed(path: tuple[Any, ...]) -> set[str]:
    """The keys that may stand at a place of the file."""
    kinds: set[type[BaseModel]] = {Settings}
    for part in path:
        # What is no field is the name of a destination or model, or the number of a rule.
        kinds = {
            inner
            for kind in kinds
            for inner in (_models(kind.model_fields[part].annotation) if part in kind.model_fields else {kind})
        }
    return {key for kind in kinds for key in kind.model_fields}


def _models(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in get_args(annotation) for model in _models(part)}


def _absolute(settings: Settings, base: Path) -> Settings:
    """Relative paths are relative to the file they stand in, wherever the process was started."""
    placed: Settings = _placed(settings, base)
    models = {
        name: entry
        if entry.bundle.startswith("builtin:")
        else entry.model_copy(update={"bundle": str(_placed(Path(entry.bundle), base))})
        for name, entry in settings.models.items()
    }
    return placed.model_copy(update={"models": models})


def _placed(value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return (base / value.expanduser()).resolve()
    if isinstance(value, BaseModel):
        # Only what changes is set: what the file does not say must still be known as not said.
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        placed = {name: _placed(item, base) for name, item in fields.items()}
        return value.model_copy(update={name: item for name, item in placed.items() if item != fields[name]})
    if isinstance(value, dict):
        return {key: _placed(item, base) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_placed(item, base) for item in value)
    return value
