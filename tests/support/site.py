"""A whole Hilum as a site runs it: `hilum serve` as its own process tree, to be fed, killed, started again and judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from gateway import bootstrap
from gateway.commands.status import STATUS_FILE
from gateway.deliver.cstore import CStorePacs
from gateway.deliver.settings import DicomDestination
from gateway.domain.job import Receipt
from gateway.domain.ports import ObjectFile
from gateway.settings import read_settings
from gateway.store.ledger import SqlLedger
from tests.support.orthanc import free_port

ENDED = ("delivered", "undelivered", "quarantined", "dead", "superseded", "retracted")


class Site:
    """One site: a folder with `hilum.yaml` and `data`, and the processes of `hilum serve`."""

    def __init__(self, directory: Path, configuration: Mapping[str, Any], *, role: str = "serve") -> None:
        self.directory, self.config, self._role = directory, directory / "hilum.yaml", role
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        base = {
            "data_dir": str(directory / "data"),
            "dicom": {"port": self.port},
            "http": {"port": 0},
            # Short, so that a lost worker is noticed within a test's patience; the rules are the same.
            "jobs": {"lease": "4s", "heartbeat": "1s", "reconcile": "1s", "knock": "1s"},
            "hold": {"quiet": "1s"},
        }
        whole = base | dict(configuration)
        whole["dicom"] = {"port": self.port} | whole["dicom"]
        self.config.write_text(yaml.safe_dump(whole), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self._ledger: SqlLedger | None = None

    def __enter__(self) -> Site:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def ledger(self) -> SqlLedger:
        """The ledger, to look into."""
        if self._ledger is None:
            self._ledger = bootstrap.make_ledger(read_settings(self.config))
        return self._ledger

    @property
    def status(self) -> dict[str, Any]:
        """Process ids and ports."""
        found: dict[str, Any] = json.loads((self.directory / "data" / STATUS_FILE).read_text())
        return found

    @property
    def log(self) -> str:
        """All that the processes have said."""
        return (self.directory / "serve.log").read_text(errors="replace")

    def start(self) -> None:
        """Starts `hilum serve` and waits until it is ready."""
        (self.directory / "data" / STATUS_FILE).unlink(missing_ok=True)
        with (self.directory / "serve.log").open("ab") as log:
            command = [sys.executable, "-m", "gateway.cli", self._role, "--config", str(self.config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.wait_for(lambda: (self.directory / "data" / STATUS_FILE).exists(), "the gateway to start", 30)

    def stop(self) -> int:
        """Stops it in good order; returns the exit status."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._process is None:
            return 0
        self._process.terminate()
        code = self._process.wait(60)
        self._process = None
        return code

    def kill_gateway(self) -> None:
        """SIGKILL to the gateway alone, and the end of what it leaves behind (as a machine that loses power)."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        self._process = None
        for child in children:
            if child.is_running():
                child.kill()
        psutil.wait_procs(children, timeout=10)

    def worker(self) -> psutil.Process:
        """The worker's process."""
        return psutil.Process(self.status["worker_pids"][0])

    def model_process(self) -> psutil.Process:
        """The process in which the model runs; waits until there is one."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found[:] = self.worker().children()
            return bool(found)

        self.wait_for(look, "a model's process")
        return found[0]

    def kill_broker(self) -> None:
        """SIGKILL to the embedded broker."""
        os.kill(self.status["broker_pid"], signal.SIGKILL)

    def send(self, files: list[Path], *, calling: str = "SCANNER") -> dict[str, Receipt]:
        """Sends files by C-STORE over one association; one receipt for each SOP Instance UID."""
        return send(files, self.port, calling)

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs."""
        return list(self.ledger.list_jobs(10_000))

    def wait_for_jobs(self, count: int, *states: str, patience: float = 120.0) -> list[dict[str, Any]]:
        """Waits until so many jobs have ended, or are in one of these states."""
        wanted = states or ENDED
        self.wait_for(
            lambda: sum(job["state"] in wanted for job in self.jobs()) >= count, f"{count} jobs {wanted}", patience
        )
        return self.jobs()

    def wait_for(self, condition: Callable[[], object], what: str, patience: float = 60.0) -> None:
        """Polls until a condition holds; fails with what was waited for and the log."""
        end = time.monotonic() + patience
        while not condition():
            alive = self._process is None or self._process.poll() is None
            assert alive, f"the gateway ended while waiting for {what}:\n{self.log[-4000:]}"
            assert time.monotonic() < end, f"waited {patience:g} s for {what}:\n{self.log[-4000:]}"
            time.sleep(0.05)  # between two looks; the condition ends the wait

    def hilum(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a `hilum` command with this site's configuration."""
        command = [sys.executable, "-m", "gateway.cli", *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def send(files: list[Path], port: int, calling: str = "SCANNER", *, called: str = "HILUM") -> dict[str, Receipt]:
    """Sends files by C-STORE over one association; one receipt for each SOP Instance UID."""
    import pydicom

    objects = []
    for file in files:
        meta = pydicom.filereader.read_file_meta_info(file)
        objects.append(
            ObjectFile(
                sop_class_uid=str(meta.MediaStorageSOPClassUID),
                sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
                path=file,
            )
        )
    destination = DicomDestination(kind="dicom", ae_title=called, host="127.0.0.1", port=port)
    return dict(CStorePacs(destination, calling).store(objects))
