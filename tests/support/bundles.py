"""Small MONAI bundles that do what models do on bad days, for tests of everything around a model.

Their network labels every voxel above half the image's maximum, unless it misbehaves first:

    threshold   works
    empty       finds nothing
    slow        works, `seconds` after it has left its marker
    prints      works, and talks on standard output through Python and past it
    segfault    SIGSEGV
    crash_once  SIGSEGV the first time, works from then on
    killed      SIGKILL, as the kernel does when memory runs out
    exits       exit status 3
    hang        never ends
    oom         asks for memory until there is none
    raises      RuntimeError
    nan         output is not a number
    shape       output has another shape
    values      labels that the manifest does not know
    dropout     works, and leaves something out where dropout is on

or tries to get out:

    escapes     does all that a model must not, one after another, and complains of what it could do
    reads       /etc/passwd
    fills       writes files until there is no room
    huge        asks for 100 GB at once, privately; `shared` in memory that is shared
    litters     leaves empty files until there is no room
    nameless    writes into files without a name
    buries      nests folders three hundred deep
    threads     starts threads until it may not
    nests       answers with JSON ten thousand deep; `babbles` with a stage of many lines
    usurps      puts a file where its results should be, and dies
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save

BEHAVIOURS = {
    "threshold": "pass",
    "empty": "image = image * 0",
    "slow": "MARKER.touch(); time.sleep(SECONDS)",
    "prints": "print('to Python'); os.write(1, b'past Python\\n')",
    "segfault": "os.kill(os.getpid(), signal.SIGSEGV)",
    "crash_once": "if not MARKER.exists():\n            MARKER.touch()\n            os.kill(os.getpid(), signal.SIGSEGV)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "exits": "os._exit(3)",
    "hang": "signal.pause()",
    "oom": "kept = [torch.ones(2**26) for _ in range(4096)]",
    "raises": "raise RuntimeError('no such luck')",
    "nan": "image = image * float('nan')",
    "shape": "image = image[..., 1:]",
    "values": "image = image * 7",
    "dropout": "image = self.drop(image)",
    "escapes": "escape()",
    "reads": "open('/etc/passwd').read()",
    "fills": "fill()",
    "huge": "torch.ones(25 * 10**9)",
    "shared": "mmap.mmap(-1, 10**11)",
    "litters": "litter()",
    "nameless": "nameless()",
    "buries": "bury()",
    "threads": "start_threads()",
    "nests": "say(b'{\"stage\":' + b'[' * 100_000)",
    "babbles": 'say(b\'{"stage": "one\\\\ntwo"}\')',
    "usurps": "usurp()",
}

_NETWORK = '''"""A network for tests."""

import ctypes
import fcntl
import itertools
import mmap
import os
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import torch

SECONDS = {seconds!r}
SCRATCH = Path(tempfile.gettempdir())
MARKER = {marker}
OUTSIDE = Path(__file__).parents[2]
ESCAPES = {{
    "reads": lambda: open("/etc/passwd").read(),
    "looks at other files": lambda: list(OUTSIDE.iterdir()),
    "writes elsewhere": lambda: (OUTSIDE / "elsewhere").touch(),
    "changes itself": lambda: Path(__file__).write_text(""),
    "changes its input": lambda: [path.write_bytes(b"") for path in (OUTSIDE / "in-escapes").iterdir()],
    "changes modes": lambda: os.chmod(tempfile.gettempdir(), 0o777),
    "TCP": lambda: socket.create_connection(("127.0.0.1", 9), 1),
    "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "local sockets": lambda: socket.socket(socket.AF_UNIX),
    "forks": lambda: os._exit(0) if os.fork() == 0 else None,
    "programs": lambda: subprocess.run(["true"], check=True),
    "becomes a program": lambda: os.execv("/bin/true", ["true"]),
    "shoots its parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "shoots everybody": lambda: os.kill(-1, signal.SIGKILL),
    "reads its parent": lambda: open(f"/proc/{{os.getppid()}}/environ").read(),
    "socket pairs": lambda: socket.socketpair(),
    "kernel's own sockets": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "outlives its worker": lambda: system_call("prctl", 1, 0),
    "hides from its worker": lambda: system_call("prctl", 4, 0),
    "sends signals by files": lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid()),
    "message queues": lambda: system_call("msgget", 0, 0o1600),
    "watches others": lambda: system_call("inotify_init1", 0),
    "holds its parent back": lambda: os.sched_setaffinity(os.getppid(), {{0}}),
    "changes times": lambda: os.utime(OUTSIDE),
    "links": lambda: os.symlink("/etc/passwd", SCRATCH / "link"),
    "pipes with names": lambda: os.mkfifo(SCRATCH / "pipe"),
    "secret memory": lambda: os.memfd_create("secret"),
    "raises its limit": lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
}}


def escape():
    done = []
    for name, attempt in ESCAPES.items():
        try:
            attempt()
            done.append(name)
        except (OSError, ValueError):
            pass
    if done or os.system("true") == 0:
        raise RuntimeError(", ".join(done) or "a shell")


def system_call(name, *arguments):
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def litter():
    for number in itertools.count():
        (SCRATCH / f"empty-{{number}}").touch()


def nameless():
    for _ in range(8):
        os.write(os.open(SCRATCH, os.O_TMPFILE | os.O_RDWR), bytes(2**24))
    signal.pause()


def bury():
    os.chdir(SCRATCH)
    for _ in range(300):
        os.mkdir("deeper")
        os.chdir("deeper")
    signal.pause()


def start_threads():
    threading.stack_size(2**16)
    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def say(text):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, text + b"\\n")
        except OSError:
            pass
    signal.pause()


def usurp():
    for folder in SCRATCH.iterdir():
        if folder.is_dir():
            folder.rmdir()
            folder.touch()
    os._exit(3)


def fill():
    for number in itertools.count():
        (Path(tempfile.gettempdir()) / str(number)).write_bytes(bytes(2**24))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))
        self.drop = torch.nn.Dropout(0.5) if {behaviour!r} == "image = self.drop(image)" else None

    def forward(self, image):
        {behaviour}
        return image
'''


def write_bundle(
    directory: Path,
    behaviour: str = "threshold",
    *,
    seconds: float = 1.0,
    timeout: float = 60.0,
    memory_mib: int = 2048,
    geometry: dict[str, Any] | None = None,
    modality: tuple[str, ...] = ("MR", "CT"),
    plausible: tuple[float, float] | None = None,
    name: str | None = None,
    uncertainty: dict[str, Any] | None = None,
    body_part: tuple[str, ...] = (),
    envelope: dict[str, Any] | None = None,
    explanation: dict[str, Any] | None = None,
) -> Path:
    """Writes a valid bundle with its manifest and returns the directory.

    ``geometry`` is merged into the manifest's. The marker that some behaviours leave is `begun` in the scratch of the
    model's process, the only place where it may write.
    """
    for folder in ("configs", "models", "scripts"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    weights = save({"level": np.full(1, 0.5, dtype=np.float32)})
    (directory / "models/model.safetensors").write_bytes(weights)
    (directory / "scripts/__init__.py").touch()
    # The job's own folder is what another process of the same job finds again.
    marker = "next(SCRATCH.iterdir()) / 'begun'" if behaviour == "crash_once" else "SCRATCH / 'begun'"
    source = _NETWORK.format(behaviour=BEHAVIOURS[behaviour], seconds=seconds, marker=marker)
    (directory / "scripts/network.py").write_text(source)
    (directory / "configs/metadata.json").write_text(json.dumps(_metadata()))
    (directory / "configs/inference.json").write_text(json.dumps(_config(behaviour), indent=2))
    manifest = _manifest(name or f"test_{behaviour}", hashlib.sha256(weights).hexdigest(), plausible)
    manifest["input"] = {"modality": list(modality), "geometry": geometry or {}, "body_part": list(body_part)}
    manifest["input"] |= {"envelope": envelope} if envelope else {}
    manifest |= {"uncertainty": uncertainty} if uncertainty else {}
    manifest |= {"explanation": explanation} if explanation else {}
    manifest["resources"] = {"memory_mib": memory_mib, "timeout_s": timeout}
    (directory / "hilum.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return directory


def _metadata() -> dict[str, Any]:
    return {"version": "1.0.0", "monai_version": "1.6.1", "pytorch_version": "2.13.0", "numpy_version": "2.4.6"}


def _config(behaviour: str) -> dict[str, Any]:
    # A label that the manifest does not know must pass the threshold untouched.
    last = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    if behaviour == "values":
        last = {"_target_": "Lambdad", "keys": "pred", "func": "$lambda label: label.round()"}
    return {
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": {"_target_": "scripts.network.Network"},
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "EnsureTyped", "keys": "image"},
                {"_target_": "ScaleIntensityd", "keys": "image", "minv": 0.0, "maxv": 1.0},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": [last]},
    }


def _manifest(name: str, sha256: str, plausible: tuple[float, float] | None) -> dict[str, Any]:
    volume: dict[str, Any] = {
        "kind": "volume",
        "segment": 1,
        "name": {"value": "118565006", "scheme": "SCT", "meaning": "Volume"},
        "unit": {"value": "mL", "scheme": "UCUM", "meaning": "milliliter"},
    }
    if plausible is not None:
        volume["plausible"] = {"min": plausible[0], "max": plausible[1]}
    segment = {
        "number": 1,
        "label": "Bright",
        "category": {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"},
        "type": {"value": "12738006", "scheme": "SCT", "meaning": "Brain"},
        "cielab": [62.0, 52.0, 30.0],
    }
    return {
        "manifest": 1,
        "name": name,
        "version": "1.0.0",
        "title": "Above half",
        "intended_use": "Tests; never for a patient.",
        "license": "Apache-2.0",
        "device": {"manufacturer": "Hilum", "model_name": name, "uid": "2.25.4711"},
        "weights": {"file": "models/model.safetensors", "sha256": sha256},
        "output": {"kind": "segmentation", "segments": [segment], "measurements": [volume]},
    }
