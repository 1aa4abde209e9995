"""Hilum, DCMTK's storescp and Orthanc as receivers to measure: started, killed and asked what they have kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import yaml
from pydicom.filereader import read_file_meta_info

from gateway import bootstrap
from gateway.commands.orthanc import DemoOrthanc, free_port
from gateway.commands.serve import STATUS_FILE
from gateway.domain.errors import NotFound
from gateway.domain.ids import StudyUID
from gateway.settings import read_settings
from tests.support.series import dataset_sha256

# Without these two, DCMTK and Orthanc wait 40 ms for each instance.
FAST = {"TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "262144"}

Stored = dict[str, str]  # SOP Instance UID to SHA-256 of the dataset


class Receiver:
    """One receiver with its folder."""

    name = ""
    with_children = False  # whether its child processes do its work

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Begins to listen."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends in good order."""
        self.process.terminate()
        self.process.wait()

    def stored(self) -> Stored:
        """What it has kept, looked up after it has ended."""
        raise NotImplementedError

    @property
    def process(self) -> psutil.Process:
        """The process that receives."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL to it and all its children; nothing where it is dead already."""
        if not self.process.is_running():
            return
        everyone = [self.process, *self.process.children(recursive=True)]
        for one in everyone:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everyone, timeout=10)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        times = self.process.cpu_times()
        children = times.children_user + times.children_system if self.with_children else 0.0
        return float(times.user + times.system + children)

    def memory(self) -> int:
        """Bytes in memory now."""
        members = [self.process, *(self.process.children(recursive=True) if self.with_children else [])]
        return sum(_rss(one) for one in members)

    def memory_of_all(self) -> int:
        """The same with all its children, where pages that they share count each time."""
        return sum(_rss(one) for one in (self.process, *self.process.children(recursive=True)))


class Hilum(Receiver):
    """`hilum gateway` as a site runs it."""

    name, durability, processes = "Hilum", "full", 1

    def start(self) -> None:
        data, config = self.folder / "data", self.folder / "hilum.yaml"
        dicom = {"port": self.port, "durability": self.durability, "processes": self.processes}
        dicom |= {"refuse_new_below": 0.0, "refuse_all_below": 0.0}
        self.http_port = free_port()
        settings = {"data_dir": str(data), "dicom": dicom, "http": {"port": self.http_port}}
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        (data / STATUS_FILE).unlink(missing_ok=True)
        before = self._ready()
        with (self.folder / "log").open("ab") as output:
            command = [sys.executable, "-m", "gateway.cli", "gateway", "--config", str(config)]
            self._process = psutil.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        _wait(lambda: (data / STATUS_FILE).exists())
        if self.processes > 1:
            _wait(lambda: self._ready() - before >= self.processes)

    def _ready(self) -> int:
        log = self.folder / "log"
        return log.read_text(errors="replace").count("receiver process ready") if log.exists() else 0

    @property
    def process(self) -> psutil.Process:
        return self._process

    def stored(self) -> Stored:
        settings = read_settings(self.folder / "hilum.yaml")
        ledger, spool = bootstrap.make_ledger(settings), bootstrap.make_spool(settings)
        found: Stored = {}
        try:
            for study in ledger.list_studies(100_000):
                for item in ledger.study(StudyUID(study["uid"])).instances:
                    with suppress(NotFound):
                        _add(found, item.header.sop_instance_uid, spool.path(item.file))
        finally:
            ledger.close()
        return found


class HilumOs(Hilum):
    """The same without waiting for the disk."""

    name, durability = "Hilum, durability: os", "os"


class HilumWeb(Hilum):
    """With its web process, which takes STOW-RS."""

    with_children = True

    def start(self) -> None:
        super().start()
        self.dicomweb = f"http://127.0.0.1:{self.http_port}/dicom-web"
        _wait(lambda: _answers(f"http://127.0.0.1:{self.http_port}/healthz"))

    def cpu(self) -> float:
        """Of the children too, which are alive, so that nobody has waited for them."""
        everyone = [self.process, *self.process.children(recursive=True)]
        return sum(float(sum(one.cpu_times()[:2])) for one in everyone)


class HilumTwo(Hilum):
    """With two receiver processes."""

    name, processes = "Hilum, processes: 2", 2

    def start(self) -> None:
        super().start()
        status = json.loads((self.folder / "data" / STATUS_FILE).read_text())
        self._everyone = [self._process, *(psutil.Process(pid) for pid in status["receiver_pids"])]

    def cpu(self) -> float:
        return sum(float(sum(one.cpu_times()[:2])) for one in self._everyone)

    def memory(self) -> int:
        return sum(map(_rss, self._everyone))


class Storescp(Receiver):
    """DCMTK, a process for each association, bytes as they come."""

    name, with_children = "DCMTK storescp", True

    def start(self) -> None:
        (self.folder / "files").mkdir(exist_ok=True)
        command = ["storescp", "--fork", "+B", "-od", str(self.folder / "files"), str(self.port)]
        # It says every failure of a disk that is gone.
        self._process = psutil.Popen(command, env=os.environ | FAST, stderr=subprocess.DEVNULL)
        _wait(lambda: subprocess.run(["echoscu", "127.0.0.1", str(self.port)], capture_output=True).returncode == 0)

    @property
    def process(self) -> psutil.Process:
        return self._process

    def stored(self) -> Stored:
        found: Stored = {}
        for path in (self.folder / "files").iterdir():
            with suppress(Exception):  # whatever a torn file makes of a reader
                _add(found, str(read_file_meta_info(path).MediaStorageSOPInstanceUID), path)
        return found


class Orthanc(Receiver):
    """Orthanc with the configuration that ships with Hilum."""

    name = "Orthanc"

    def start(self) -> None:
        os.environ.update(FAST)
        self._orthanc = DemoOrthanc(self.folder, 1)
        self._orthanc.start()
        self.port = self._orthanc.dicom_port
        self.dicomweb = f"{self._orthanc.url}/dicom-web"
        assert self._orthanc._process is not None
        self._own = psutil.Process(self._orthanc._process.pid)

    @property
    def process(self) -> psutil.Process:
        return self._own

    def stop(self) -> None:
        self._orthanc.stop()

    def stored(self) -> Stored:
        self.start()
        found: Stored = {}
        file = self.folder / "read.dcm"
        try:
            for item in json.loads(self._get("/instances?expand")):
                with suppress(OSError):  # it answers with an error for a file that is gone
                    file.write_bytes(self._get(f"/instances/{item['ID']}/file"))
                    _add(found, item["MainDicomTags"]["SOPInstanceUID"], file)
        finally:
            self.stop()
        return found

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._orthanc.url + path, timeout=60) as answer:  # noqa: S310 - our own
            return bytes(answer.read())


RECEIVERS: tuple[type[Receiver], ...] = (Hilum, HilumOs, HilumTwo, Storescp, Orthanc)


def progress(what: str) -> None:
    """Says on stderr what is being done."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _add(found: Stored, uid: str, path: Path) -> None:
    """What is damaged has not been kept."""
    with suppress(Exception):  # whatever a torn file makes of a reader
        found[uid] = dataset_sha256(path)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own
        return True
    return False


def _wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the receiver does not start"
        time.sleep(0.05)  # between two looks; the condition ends the wait
