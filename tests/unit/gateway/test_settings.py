"""`hilum.yaml`: what is good, and one sentence for everything that is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.domain.errors import ConfigurationError
from gateway.receive.settings import DicomSettings
from gateway.report.settings import Hl7Destination
from gateway.settings import Settings, parse_settings, read_settings

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"

SITE = """\
data_dir: ./data
dicom:
  ae_title: HILUM
  host: 127.0.0.1
  port: 11112
  peers:                                    # who may send; [] means loopback only
    - {ae_title: CT1, host: 127.0.0.0/8}
http: {host: 127.0.0.1, port: 8080}
ledger: {url: sqlite}                       # or postgresql+psycopg://…
broker: {url: embedded}                     # or redis://…
spool: {url: local}                         # or s3://bucket/prefix
destinations:
  pacs: {kind: dicom, ae_title: ORTHANC, host: 127.0.0.1, port: 4242, results: [seg, sr, sc], verify: commitment}
  archive: {kind: dicomweb, url: http://127.0.0.1:8042/dicom-web, results: [seg, sr], verify: readback}
  ehr: {kind: hl7, host: 127.0.0.1, port: 2575, version: "2.5.1", charset: "UNICODE UTF-8"}
models:
  brain-tissue: {bundle: "builtin:brain_tissue"}   # or a directory
rules:
  - name: brain MR
    when: 'study.modalities.exists(m, m == "MR") && series.body_part == "BRAIN"'     # CEL
    run: [brain-tissue]
    deliver: [pacs, archive, ehr]
    hold: {quiet: 5s}
"""


def test_the_contract() -> None:
    """The configuration that the design promises is good, and means what it says."""
    site = parse_settings(SITE)
    assert (site.dicom.ae_title, site.dicom.port, site.dicom.peers[0].host) == ("HILUM", 11112, "127.0.0.0/8")
    assert [type(item) for item in site.destinations.values()] == [
        DicomDestination,
        DicomwebDestination,
        Hl7Destination,
    ]
    assert (site.rules[0].hold.quiet, site.rules[0].deliver) == (5.0, ("pacs", "archive", "ehr"))


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_nothing_is_all_defaults(text: str) -> None:
    """An empty file is a site that takes images from this machine only."""
    assert parse_settings(text) == Settings()
    assert Settings().dicom.model_dump() == DicomSettings().model_dump()


MISTAKES: list[tuple[str, str, str]] = [
    # what stands in the good file, what stands there instead, and the sentence after `hilum.yaml:`
    ("port: 11112", "port: 70000", "5: dicom.port: must be less than or equal to 65535"),
    ("port: 11112", "port: eleven", "5: dicom.port: must be a whole number"),
    ("port: 11112", "prt: 11112", "5: dicom.prt: unknown key (did you mean 'port'?)"),
    ("ae_title: HILUM", "ae_title: HILUM_IS_A_LONG_NAME", "3: dicom.ae_title: AE title is empty, longer than 16"),
    ("ae_title: HILUM", "ae_title: 5", "3: dicom.ae_title: must be a text: put it in quotes"),
    ("ae_title: HILUM", "port: 1", "5: port: stands twice in the same place; keep one"),
    ("host: 127.0.0.0/8}", "host: ct1.local}", "7: dicom.peers.0.host: not an IP address or network: write 192.0.2.7 or"),
    ("host: 127.0.0.0/8}", "adress: x, host: 1.2.3.4}", "7: dicom.peers.0.adress: unknown key"),
    ("http: {", "htpp: {", "8: htpp: unknown key (did you mean 'http'?)"),
    ("http: {host: 127.0.0.1, port: 8080}", "http: 8080", "8: http: must hold keys, each with its value"),
    ("url: sqlite}", "url: mysql://x}", "9: ledger.url: write sqlite, or postgresql+psycopg://USER@HOST/DATABASE"),
    ("url: embedded}", "url: localhost}", "10: broker.url: write embedded, or redis://HOST:6379/0"),
    ("url: local}", "url: s3://x}", "11: spool.url: must be 'local'"),
    ("kind: dicom,", "kind: dimse,", "13: destinations.pacs: kind must be dicom, dicomweb, hl7 or fhir"),
    ("kind: dicom, ", "", "13: destinations.pacs: kind is missing: write kind: dicom, dicomweb, hl7 or fhir"),
    ("port: 4242", "port: 0", "13: destinations.pacs.port: must be greater than or equal to 1"),
    ("port: 4242, ", "", "13: destinations.pacs.port: is missing"),
    ("results: [seg, sr, sc]", "results: [seg, srr]", "13: destinations.pacs.results.1: no result is called 'srr'"),
    ("results: [seg, sr, sc]", "results: seg", "13: destinations.pacs.results: must be a list: write [one, another]"),
    ("results: [seg, sr, sc]", "results: []", "13: destinations.pacs.results: must not be empty"),
    ("verify: commitment", "verfy: commitment", "13: destinations.pacs.verfy: unknown key (did you mean 'verify'?)"),
    ("verify: commitment", "timeouts: {conect: 5s}", "13: destinations.pacs.timeouts.conect: unknown key (did you mean"),
    ("url: http://127.0.0.1:8042/dicom-web", "url: 127.0.0.1:8042", "14: destinations.archive.url: write http://HOST:PORT/PATH"),
    ("url: http://127.0.0.1:8042/dicom-web", "url: http://me:secret@h/x", "14: destinations.archive.url: write http://HOST:PORT"),
    ('version: "2.5.1"', 'version: "2.3"', '15: destinations.ehr.version: not an HL7 version that can be sent'),
    ('charset: "UNICODE UTF-8"', 'charset: "utf8"', "15: destinations.ehr.charset: not a character set of HL7 table 0211"),
    ('version: "2.5.1"', "acknowledgement: deferred", "15: destinations.ehr.acknowledgement: the application's answer may come to"),
    ('bundle: "builtin:brain_tissue"', 'bundel: "x"', "17: models.brain-tissue.bundel: unknown key (did you mean 'bundle'?)"),
    ("  brain-tissue: {", '  "brain/tissue": {', "17: models.brain/tissue: a name is letters, digits, blanks and . _ -"),
    ("run: [brain-tissue]", "run: [brain-tisue]", "21: rules.0.run: no model is called 'brain-tisue' (did you mean 'brain-t"),
    ("run: [brain-tissue]", "run: brain-tissue", "21: rules.0.run: must be a list: write [one, another]"),
    ("run: [brain-tissue]", "run: []", "21: rules.0.run: must not be empty"),
    ("deliver: [pacs, archive, ehr]", "deliver: [pasc]", "22: rules.0.deliver: no destination is called 'pasc' (did you mean 'p"),
    ('series.body_part == "BRAIN"', 'series.bodypart == "BRAIN"', "20: rules.0.when: unknown name 'series.bodypart' (did you mean"),
    ('series.body_part == "BRAIN"', "series.body_part =", "20: rules.0.when: not a CEL expression"),
    ('series.body_part == "BRAIN"', "series.body_part", "20: rules.0.when: "),
    ("quiet: 5s", "quiet: 5 weeks", "23: rules.0.hold.quiet: not a duration: write 500ms, 5s, 2m, 1h or 3d"),
    ("quiet: 5s", "quiet: 2h", "23: rules.0.hold: quiet is longer than limit (3600s)"),
    ("quiet: 5s", "at_limit: drop", "23: rules.0.hold.at_limit: must be 'run' or 'quarantine'"),
    ("quiet: 5s", "trust: [counts]", "23: rules.0.hold.trust.0: must be 'count', 'mpps' or 'require'"),
    ("quiet: 5s", "require: ['series.x']", "23: rules.0.hold.require.0: unknown name 'series.x'"),
    ("quiet: 5s", "require: 'true'", "23: rules.0.hold.require: must be a list"),
    ("data_dir: ./data", "hold: {require: ['true']}", "1: hold.require: unknown key"),
    ("host: 127.0.0.0/8}", "host: 10.0.0.0/8, query: {ae_title: A, host: b}}", "7: dicom.peers.0.query.port: is missing"),
    ("host: 127.0.0.0/8}", "host: 10.0.0.0/8, query: {url: 'x y'}}", "7: dicom.peers.0.query.url: write http://HOST"),
    ("host: 127.0.0.0/8}", "host: 1.2.3.4, query: {url: 'http://x', usr: y}}", "7: dicom.peers.0.query.usr: unknown key (did"),
    ("host: 127.0.0.0/8}", "host: 1.2.3.4, query: {url: 'http://x', user: y}}", "7: dicom.peers.0.query: user and password_file"),
    ("host: 127.0.0.0/8}", "host: 10.0.0.0/8, query: PACS}", "7: dicom.peers.0.query: must hold keys"),
    ("quiet: 5s", "quite: 5s", "23: rules.0.hold.quite: unknown key (did you mean 'quiet'?)"),
    ("hold: {quiet: 5s}", "priority: soon", "23: rules.0.priority: must be 'stat', 'urgent', 'routine', 'off-peak' or 'order'"),
    ("data_dir: ./data", "jobs: {lease: 20s}", "1: jobs: heartbeat (15s) must be at most half of lease (20s)"),
    ("data_dir: ./data", "jobs: {knock: 0}", "1: jobs.knock: must be greater than 0"),
    ("data_dir: ./data", "data_dir: [x]", "1: data_dir: must be a path"),
    ("data_dir: ./data", "data_dir: [x", "2: not valid YAML: "),
    ("data_dir: ./data", 'data_dir: "a\0b"', " not valid YAML: unacceptable character"),
    ("data_dir: ./data", "data_dir: 2026-13-45", " not valid YAML: a date that is none"),
    ("data_dir: ./data", "data_dir: " + "[" * 3000, " not valid YAML: too many levels"),
    ("data_dir: ./data", "data_dir: !!python/object/apply:os.getcwd []", "1: not valid YAML: could not determine a constructor"),
    ("data_dir: ./data", "1: x", "1: 1: must be a text"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "sentence"), MISTAKES)
def test_each_mistake_is_one_sentence(good: str, bad: str, sentence: str) -> None:
    """File, line, key, what is wrong and what to write instead."""
    assert good in SITE
    with pytest.raises(ConfigurationError) as raised:
        parse_settings(SITE.replace(good, bad, 1), "hilum.yaml")
    lines = raised.value.message.splitlines()
    assert any(line.startswith(f"hilum.yaml:{sentence}") for line in lines), raised.value.message
    assert len(lines) <= 2, "a misspelt key that is needed is two: one unknown, one missing"
    assert raised.value.exit_status == 2


def test_every_mistake_at_once() -> None:
    """All that is wrong is said in one go, a line each."""
    with pytest.raises(ConfigurationError) as raised:
        parse_settings("dicom: {port: x, prot: 1}\nhttp: {port: -1}\n", "hilum.yaml")
    assert [line.split(": ")[0] for line in raised.value.message.splitlines()] == [
        "hilum.yaml:1",
        "hilum.yaml:1",
        "hilum.yaml:2",
    ]


def test_two_rules_of_one_name() -> None:
    """They could not be told apart in the story of a study, nor in their way of waiting."""
    rule = '  - {name: brain MR, when: "true", run: [brain-tissue]}\n'
    with pytest.raises(ConfigurationError, match=r"hilum\.yaml:24: rules\.1\.name: another rule is called 'brain MR'"):
        parse_settings(SITE + rule, "hilum.yaml")


@pytest.mark.parametrize("text", ["- a\n", "a\n", "5\n"])
def test_what_is_no_mapping(text: str) -> None:
    """A file of another shape is one sentence."""
    with pytest.raises(ConfigurationError, match=r"hilum\.yaml:1: the file: must hold keys"):
        parse_settings(text, "hilum.yaml")


def test_aliases_are_no_trap() -> None:
    """A file that contains itself is refused, not followed for ever."""
    with pytest.raises(ConfigurationError, match="unknown key"):
        parse_settings("a: &x [*x]\n")


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command is run, the data is beside the configuration, and so are keys and bundles."""
    (tmp_path / "site").mkdir()
    file = tmp_path / "site" / "hilum.yaml"
    tls = "dicom: {tls: {cert_file: c.pem, key_file: /k.pem}}\n"
    file.write_text(f"data_dir: d\n{tls}models:\n  a: {{bundle: b}}\n  b: {{bundle: 'builtin:x'}}\n")
    monkeypatch.chdir("/")
    site = read_settings(file)
    assert site.data_dir == tmp_path / "site" / "d"
    assert site.dicom.tls is not None
    assert (site.dicom.tls.cert_file, site.dicom.tls.key_file) == (tmp_path / "site" / "c.pem", Path("/k.pem"))
    assert {name: entry.bundle for name, entry in site.models.items()} == {
        "a": str(tmp_path / "site" / "b"),
        "b": "builtin:x",
    }
    assert site.ledger_url == f"sqlite:///{tmp_path}/site/d/ledger.db"


def test_no_file_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the data is in the directory at hand."""
    monkeypatch.chdir(tmp_path)
    assert read_settings(None).data_dir == tmp_path / "data"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """A missing file and one that is no text are one sentence."""
    if content is not None:
        (tmp_path / "hilum.yaml").write_bytes(content)
    with pytest.raises(
        ConfigurationError, match=r"hilum\.yaml: cannot be read: (No such file or directory|not UTF-8)$"
    ):
        read_settings(tmp_path / "hilum.yaml")


# --- the documentation -----------------------------------------------------------------------------------------------


def keys(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> set[str]:
    """Every key of a JSON Schema, as it is written in the page: `destinations.NAME.port`, `rules[].name`."""
    found: set[str] = set()
    if "$ref" in node:
        return keys(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[1]], prefix)
    for choice in ("anyOf", "oneOf", "allOf"):
        for option in node.get(choice, []):
            found |= keys(schema, option, prefix)
    for name, item in node.get("properties", {}).items():
        path = f"{prefix}.{name}".lstrip(".")
        found |= {path} | keys(schema, item, path)
    if isinstance(node.get("items"), dict):
        found |= keys(schema, node["items"], f"{prefix}[]")
    for option in [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]:
        if isinstance(option, dict):
            found |= keys(schema, option, f"{prefix}.NAME")
    return found


def test_every_key_is_documented() -> None:
    """The page names every key of the file and none that does not exist."""
    schema = Settings.model_json_schema()
    known = keys(schema, schema)
    assert "destinations.NAME.timeouts.connect" in known
    written = set(re.findall(r"^\| `([a-z_A-Z0-9.\[\]]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    written = {
        key for key in written if key.split(".")[0] not in ("study", "series", "sender", "order")
    }  # of conditions
    assert known - written == set(), "not in docs/configuration.md"
    assert written - known == set(), "in docs/configuration.md, but not in the product"


def test_the_examples_in_the_documentation_are_good() -> None:
    """Every YAML example of the page is a good file, alone."""
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) > 5
    for example in examples:
        parse_settings(example, "docs/configuration.md")


def test_what_conditions_can_talk_about_is_documented() -> None:
    """Every field of study, series and sender stands in the page."""
    from gateway.route.rules import _EXAMPLE

    text = PAGE.read_text(encoding="utf-8")
    for root, fields in _EXAMPLE.items():
        for field in fields:
            assert f"`{root}.{field}`" in text
