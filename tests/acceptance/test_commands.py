"""The commands that read, check and send, beside a running site."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gateway.domain.roles import USUAL
from tests.acceptance.conftest import MakeSite
from tests.acceptance.test_process import hilum, refusal
from tests.support.block import write_block
from tests.support.neighbours import Neighbours, study_uid_of
from tests.support.orthanc import free_port

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_every_reading_command_tells_the_same_story(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """A study sent by `hilum send` is found by studies, jobs, deliveries and explain, in JSON and for people."""
    files = write_block(tmp_path / "in")
    site = make_site()
    sent = hilum("send", tmp_path / "in", "127.0.0.1", site.port, "--calling-aet", "CT1", "--json")
    assert json.loads(sent.stdout)["sent"] == len(files), sent.stderr
    (job,) = site.wait_for_jobs(1)
    study = study_uid_of(files)

    (row,) = json.loads(site.hilum("studies", "--json").stdout)
    assert (row["uid"], row["state"], row["instances"]) == (study, "routed", len(files))
    (row,) = json.loads(site.hilum("jobs", "--json").stdout)
    assert (row["id"], row["state"], row["study_uid"]) == (job["id"], "delivered", study)
    rows = json.loads(site.hilum("deliveries", "--json").stdout)
    assert {(item["destination"], item["role"]) for item in rows} == {
        *(("pacs", role) for role in USUAL if role != "pm"), ("ehr", "oru"),
    }  # fmt: skip
    story = json.loads(site.hilum("explain", study, "--json").stdout)
    assert story["series"][0]["calling_ae"] == "CT1"
    assert "quiet for" in story["study"]["reason"] or "every MR" in story["study"]["reason"]
    for command in (["studies"], ["jobs"], ["deliveries"], ["explain", study]):
        shown = site.hilum(*command)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.strip()
    assert "no study 1.2.3 has arrived" in refusal(site.hilum("explain", "1.2.3"))


def test_check_finds_everything_well(make_site: MakeSite) -> None:
    """The doctor has nothing to complain of at a site that runs."""
    site = make_site()
    done = site.hilum("check", "--json")
    findings = {item["what"]: item for item in json.loads(done.stdout)}
    assert all(item["good"] for item in findings.values()), findings
    assert done.returncode == 0
    assert {"data_dir", "ledger", "broker", "dicom node", "rules", "model model", "destination pacs"} <= set(findings)


def test_check_names_what_is_wrong(tmp_path: Path) -> None:
    """A port in use, a PACS and an EHR that are not there, reports that could not come in: status 1, each with its fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site = {
            "data_dir": str(tmp_path / "data"),
            "dicom": {"port": taken.getsockname()[1], "peers": [{"ae_title": "CT1", "host": "127.0.0.1"}]},
            "destinations": {
                "pacs": {
                    "kind": "dicom", "ae_title": "NOWHERE", "host": "127.0.0.1", "port": free_port(),
                    "verify": "commitment",
                },
                "ehr": {"kind": "hl7", "host": "127.0.0.1", "port": free_port()},
            },
        }  # fmt: skip
        (tmp_path / "hilum.yaml").write_text(yaml.safe_dump(site))
        done = hilum("check", "--config", tmp_path / "hilum.yaml", "--json")
        started = hilum("serve", "--config", tmp_path / "hilum.yaml")
    assert done.returncode == 1
    wrong = {item["what"]: item["fix"] for item in json.loads(done.stdout) if not item["good"]}
    assert set(wrong) == {"dicom node", "destination pacs", "reports of pacs", "destination ehr"}
    assert all(wrong.values())
    assert started.returncode == 2
    assert f"cannot listen for DICOM on 127.0.0.1:{site['dicom']['port']}" in started.stderr


def test_two_gateways_do_not_share_a_data_directory(make_site: MakeSite) -> None:
    """The second `hilum serve` ends at once with status 2 and says why."""
    site = make_site()
    done = site.hilum("serve")
    assert done.returncode == 2
    assert "another gateway is using data_dir" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dicom": {"prot": 104}}, "dicom.prot: unknown key (did you mean 'port'?)"),
        ({"rules": [{"name": "r", "when": "true", "run": ["nothing"]}]}, "no model is called 'nothing'"),
        ({"models": {"m": {"bundle": "builtin:nothing"}}}, "no bundle 'builtin:nothing' ships with Hilum"),
        (
            {
                "models": {"m": {"bundle": "builtin:brain_mask"}},
                "rules": [{"name": "r", "when": "study.colour == 1", "run": ["m"]}],
            },
            "rules.0.when",
        ),
        (
            {
                "models": {"m": {"bundle": "builtin:brain_mask"}},
                "rules": [{"name": "r", "when": "true", "run": ["m"], "deliver": ["pcas"]}],
            },
            "no destination is called 'pcas'",
        ),
    ],
)
def test_wrong_configuration_is_one_sentence(tmp_path: Path, change: dict[str, object], said: str) -> None:
    """`hilum serve` with a wrong file: status 2, the key, what to write; nothing is left behind but the directory."""
    (tmp_path / "hilum.yaml").write_text(yaml.safe_dump({"data_dir": str(tmp_path / "data"), **change}))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(tmp_path / "hilum.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_models_and_schema(tmp_path: Path) -> None:
    """Models are listed, shown and verified; the schema is a JSON Schema that knows every section."""
    rows = json.loads(hilum("models", "list", "--json").stdout)
    assert {"brain_mask": "yes", "face_check": "yes"}.items() <= {row["name"]: row["ready"] for row in rows}.items()
    assert json.loads(hilum("models", "show", "brain-mask", "--json").stdout)["input"]["modality"] == ["MR"]
    assert hilum("models", "verify", "brain-mask").returncode == 0
    schema = json.loads(hilum("config", "schema").stdout)
    assert {"dicom", "destinations", "models", "rules", "hold", "jobs"} <= set(schema["properties"])
