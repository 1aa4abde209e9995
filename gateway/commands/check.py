"""`hilum check`, the site doctor: every path, part, model and peer, with the fix for what fails."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import redis
from rich.table import Table

from gateway import bootstrap
from gateway.bundle.admitted import check_accepted, check_pin
from gateway.bundle.files import bundle_digest, check_weights, read_manifest, resolve_bundle
from gateway.bundle.manifest import Resources
from gateway.commands.console import console
from gateway.deliver.settings import DicomDestination
from gateway.domain.errors import ConfigurationError, HilumError
from gateway.domain.job import ANY_DEVICE
from gateway.domain.states import DeliveryState
from gateway.hl7.client import say
from gateway.settings import Settings, read_settings
from gateway.store.lock import is_held
from gateway.submit.broker import broker_state
from gateway.submit.embedded import EmbeddedBroker, find_server
from gateway.tls import server_context
from gateway.web import server
from gateway.web.access import read_tokens
from gateway.web.links import DICOMWEB, public_url
from gateway.web.pages import Viewer, default_directory

_FIXES = {
    "dicom": "is it running, do host, port and AE title match, does it know our AE title?",
    "dicomweb": "is it running, is url its DICOMweb root, may we sign in?",
    "hl7": "is the interface engine running, do host, port and tls match, does it take messages from this machine?",
    "fhir": "is it running, is url its FHIR base, may we sign in?",
}
_HL7_FIX = "stop the other program, set hl7.port, mend hl7.tls, or restart Hilum where its certificate has changed"
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_LOW = 0.2  # free part of the disk under which new studies are refused


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    good: bool
    found: str
    fix: str = ""


def check(config: Path | None, as_json: bool) -> int:
    """Examines a site; returns the exit status. Raises ConfigurationError where the file itself is wrong."""
    settings = read_settings(config)
    findings = list(_examine(settings))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    return 0 if all(finding.good for finding in findings) else 1


def _examine(settings: Settings) -> Iterator[Finding]:
    yield _try("data_dir", lambda: _data_dir(settings), "make it, or let the user that runs Hilum write to it")
    yield _try("ledger", lambda: _ledger(settings), "look at ledger.url, and whether the database answers")
    yield _try("outbox", lambda: _outbox(settings), "configure them again under destinations, or replay when they are")
    yield _try("broker", lambda: _broker(settings), "install valkey or redis 7, or look at broker.url")
    yield _try("dicom node", lambda: _node(settings), "stop the other program, or set dicom.port")
    if settings.hl7 is not None:
        yield _try("hl7", lambda: hl7_port(settings), _HL7_FIX)
    yield _try("http", lambda: _http(settings), "stop the other program, or set http.port")
    yield _try("viewer", lambda: _viewer(settings), "run `hilum viewer install`, or set http.viewer_dir")
    yield _try("rules", lambda: f"{len(bootstrap.make_rules(settings))} rules compiled", "mend the expression")
    yield _try("sandbox", _sandbox, "let the container or the kernel offer it: see docs/sandbox.md")
    models = {name: partial(_model, settings, name) for name in settings.models}
    found = {
        n: _try(f"model {n}", look, "run `hilum models prepare`, or mend the bundle") for n, look in models.items()
    }
    yield from found.values()
    if sound := [name for name, finding in found.items() if finding.good]:
        fix = "start a worker where there is such a device, or name it in jobs.devices of a worker that has it"
        yield _try("devices", lambda: _devices(settings, sound), fix)
    for name, destination in settings.destinations.items():
        yield _try(f"destination {name}", partial(_echo, settings, name), _FIXES[destination.kind])
        if isinstance(destination, DicomDestination) and destination.verify == "commitment":
            fix = f"list {destination.ae_title} in dicom.peers, and make dicom.host an address it can reach"
            yield _try(f"reports of {name}", partial(_reports, settings, destination), fix)


def _try(what: str, look: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(what, True, look())
    except HilumError as error:
        return Finding(what, False, error.message, fix)
    except (OSError, redis.RedisError) as error:
        return Finding(what, False, str(error), fix)


def _data_dir(settings: Settings) -> str:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(settings.data_dir, os.W_OK):
        raise PermissionError(f"{settings.data_dir} is not writable")
    spool = bootstrap.make_spool(settings)
    (free, _), room = spool.free(), spool.room()
    if room < _LOW:
        raise OSError(f"{settings.data_dir}: only {room:.0%} of the disk is free, in bytes or in files")
    return f"{settings.data_dir}, {free / 1e9:.0f} GB free"


def _ledger(settings: Settings) -> str:
    ledger = bootstrap.make_ledger(settings)
    try:
        return f"{settings.ledger.url}, {len(ledger.list_studies(1000))} studies"
    finally:
        ledger.close()


def _outbox(settings: Settings) -> str:
    ledger = bootstrap.make_ledger(settings)
    try:
        waiting = ledger.list_deliveries(
            100_000,
            states=(DeliveryState.WAITING, DeliveryState.HELD, DeliveryState.SENDING, DeliveryState.STORED),
        )
    finally:
        ledger.close()
    strays = sorted({row["destination"] for row in waiting} - set(settings.destinations))
    if strays:
        raise ConfigurationError(f"deliveries wait for destinations that are not configured: {', '.join(strays)}")
    return f"{len(waiting)} deliveries on the way"


def _broker(settings: Settings) -> str:
    if settings.broker.url != "embedded":
        state = broker_state(settings.broker.url)
        return f"version {state['version']}, {state['policy']}, append-only {'on' if state['appendonly'] else 'off'}"
    if is_held(settings.data_dir):
        return f"embedded, version {broker_state(EmbeddedBroker(settings.data_dir).url)['version']}, running"
    return f"embedded, will use {find_server()}"


def _node(settings: Settings) -> str:
    dicom = settings.dicom
    if is_held(settings.data_dir):
        return f"{dicom.ae_title} is listening on {dicom.host}:{dicom.port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((dicom.host, dicom.port))
    return f"{dicom.ae_title} can listen on {dicom.host}:{dicom.port}"


def _sandbox() -> str:
    """What a model's process can be kept from on this machine; the worker's own code finds out."""
    done = subprocess.run([sys.executable, "-m", "workers.sandbox"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return "no worker is installed here"
    missing = json.loads(done.stdout)
    if any("Landlock" in item or "seccomp" in item for item in missing):
        raise ConfigurationError("this machine cannot give a model's process " + "; ".join(missing))
    said = "models run without network, new processes or files of others"
    return f"{said} (this machine does not give them {'; '.join(missing)})" if missing else said


def _devices(settings: Settings, models: Sequence[str]) -> str:
    """Whether some worker can run each of these models: those that are there, else one of this machine."""
    ledger = bootstrap.make_ledger(settings)
    try:
        there = {device for one in ledger.workers() for device in one.devices}
    finally:
        ledger.close()
    have = there or set(settings.jobs.devices or _found_devices())
    if not have:
        return "no worker is installed here, and none is running"
    needs = {name: _resources(settings, name).device for name in models}
    lacking = [f"{name} needs {device}" for name, device in needs.items() if device not in (ANY_DEVICE, *have)]
    whose = "workers that are running have" if there else "a worker of this machine would have"
    if lacking:
        raise ConfigurationError(
            f"{', '.join(lacking)}: {whose} {', '.join(sorted(have))} only, so its jobs would wait"
        )
    return f"{whose} {', '.join(sorted(have))}"


def _resources(settings: Settings, name: str) -> Resources:
    return read_manifest(resolve_bundle(settings.models[name].bundle, Path.cwd())).resources


def _found_devices() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "workers.app", "--devices"], capture_output=True, text=True, check=False
    )
    return list(json.loads(done.stdout)) if done.returncode == 0 else []


def hl7_port(settings: Settings) -> str:
    """The port for messages from the EHR: free, or ours and answering."""
    hl7 = settings.hl7
    assert hl7 is not None  # noqa: S101
    if is_held(settings.data_dir):
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(hl7.host, hl7.host)  # noqa: S104
        with socket.create_connection((host, hl7.port), timeout=5.0) as plain:
            if hl7.tls is not None:
                _expect_certificate(plain, hl7.tls.cert_file)
            return f"is listening on {hl7.host}:{hl7.port}{' with TLS' if hl7.tls else ''}"
    if hl7.tls is not None:
        server_context(hl7.tls, "hl7.tls")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((hl7.host, hl7.port))
    return f"can listen on {hl7.host}:{hl7.port}{' with TLS' if hl7.tls else ''}"


def _expect_certificate(plain: socket.socket, file: Path) -> None:
    """Raises OSError where a port of ours does not speak TLS, or shows another certificate than the one in the file: one
    that has been renewed since the gateway was started, or that has expired."""
    context = ssl.create_default_context(cafile=str(file))
    context.check_hostname = False  # our own, whatever it is called
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.wrap_socket(plain).close()
    except OSError as error:
        raise OSError(f"the port that is open does not show {file}: {say(error)}") from error


def _http(settings: Settings) -> str:
    read_tokens(settings.http.tokens_file)
    base = public_url(settings.http)
    if is_held(settings.data_dir):
        return f"DICOMweb is served at {base}{DICOMWEB}"
    server.listen(settings.http).close()
    return f"DICOMweb can be served at {base}{DICOMWEB}"


def _viewer(settings: Settings) -> str:
    directory = settings.http.viewer_dir or default_directory()
    if Viewer(directory).installed:
        return f"OHIF is in {directory}"
    if settings.http.viewer_dir:
        raise ConfigurationError(f"OHIF is not in {directory}")
    return "OHIF is not installed; `hilum viewer install` would do it"


def _model(settings: Settings, name: str) -> str:
    entry = settings.models[name]
    bundle = resolve_bundle(entry.bundle, Path.cwd())
    manifest = read_manifest(bundle)
    check_weights(bundle, manifest)
    digest = bundle_digest(bundle)
    check_pin(name, entry.digest, digest)
    check_accepted(settings.data_dir, name, manifest, digest)
    return f"{manifest.title} {manifest.version}, {'pinned' if entry.digest else 'not pinned'}"


def _echo(settings: Settings, name: str) -> str:
    return bootstrap.make_destination(settings, name).echo()


def _reports(settings: Settings, destination: DicomDestination) -> str:
    """Whether storage commitment reports of a destination, which come by an association of its own, are let in."""
    peers = settings.dicom.peers
    if not peers and destination.host not in _THIS_MACHINE:
        raise ConfigurationError("only this machine may call the DICOM node, so its reports cannot come in")
    if peers and destination.ae_title not in {peer.ae_title for peer in peers}:
        raise ConfigurationError(f"{destination.ae_title} may not call the DICOM node, so its reports cannot come in")
    return f"{destination.ae_title} may report to {settings.dicom.ae_title} on port {settings.dicom.port}"


def _show(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "fix"):
        table.add_column(column, overflow="fold")
    for item in findings:
        mark = "[green]ok[/green]" if item.good else "[red]FAIL[/red]"
        table.add_row(mark, item.what, item.found.replace("[", r"\["), item.fix)
    console().print(table)
