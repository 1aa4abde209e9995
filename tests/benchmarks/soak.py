"""Small instances without end while processes of the gateway are killed: every acknowledged one must be there, byte by byte.

`make soak`, or `python -m tests.benchmarks.soak [--instances 100000] [--senders 4] [--every 60]
[--at-most SECONDS]`. Each sender sends an
instance until it is acknowledged; every so many seconds a random process of the gateway is killed (SIGKILL), and the gateway
is started again where that has ended it. Ends with 1 where an acknowledged instance is missing or damaged.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from tests.benchmarks.receivers import Hilum
from tests.benchmarks.sender import Item, Sending
from tests.support.received import dataset, encode

_PATIENCE = 0.05  # seconds between two tries of a sender while nobody listens


class Senders:
    """Threads that send their share, and know what was acknowledged."""

    def __init__(self, port: int, instances: int, senders: int) -> None:
        self._port = port
        self.acknowledged: dict[str, str] = {}  # SOP Instance UID to SHA-256 of the dataset
        self.again = 0  # instances that were sent more than once
        self.enough = False  # set by whoever has no more time
        shares = [range(number, instances, senders) for number in range(senders)]
        self._threads = [threading.Thread(target=self._work, args=(share,), daemon=True) for share in shares]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether somebody still sends."""
        return any(thread.is_alive() for thread in self._threads)

    def _work(self, share: range) -> None:
        sending: Sending | None = None
        for number in share:
            if self.enough:
                break
            item, digest = _instance(number)
            while True:
                try:
                    sending = sending or Sending(self._port, "HILUM", item.sop_class_uid, item.transfer_syntax_uid)
                    if sending.store(item) == 0:
                        break
                except (OSError, ValueError, struct.error):
                    sending = None
                    self.again += 1
                    time.sleep(_PATIENCE)  # nobody listens; the next try ends the wait
            self.acknowledged[item.sop_instance_uid] = digest
        if sending is not None:
            sending.release()


def _instance(number: int) -> tuple[Item, str]:
    study = number // 1000
    made = dataset(
        1,
        SOPInstanceUID=f"1.2.826.2.{number}",
        StudyInstanceUID=f"1.2.826.3.{study}",
        SeriesInstanceUID=f"1.2.826.4.{study}",
        InstanceNumber=number,
    )
    pixels = random.Random(number).randbytes(2048)
    data = encode(made) + b"\xe0\x7f\x10\x00OW\0\0" + len(pixels).to_bytes(4, "little") + pixels
    item = Item(str(MRImageStorage), made.SOPInstanceUID, str(ExplicitVRLittleEndian), [data])
    return item, hashlib.sha256(data).hexdigest()


def _kill_one(receiver: Hilum) -> str:
    """Kills any one process and has the gateway run again; says which it was."""
    gateway = receiver.process
    victim = random.choice([gateway, *gateway.children(recursive=True)])
    what = next((one for one in ("gateway", "receiver", "web") if one in victim.cmdline()), victim.name())
    victim.kill()
    if victim == gateway:
        gateway.wait()
        receiver.start()
    return what


def main() -> int:
    """Runs it and prints what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--processes", type=int, default=1, help="that receive")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between kills")
    parser.add_argument("--at-most", type=float, default=math.inf, help="seconds after which nothing new is sent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hilum-soak-") as name:
        receiver = Hilum(Path(name))
        receiver.processes = options.processes
        receiver.start()
        started, killed = time.monotonic(), Counter[str]()
        senders = Senders(receiver.port, options.instances, options.senders)
        while senders.busy:
            end = time.monotonic() + options.every * random.uniform(0.5, 1.5)
            while senders.busy and time.monotonic() < end:
                time.sleep(0.1)  # between two looks
            senders.enough = time.monotonic() - started > options.at_most
            if senders.busy:
                killed[_kill_one(receiver)] += 1
        seconds = time.monotonic() - started
        receiver.stop()
        kept = receiver.stored()
        lost = [uid for uid, digest in senders.acknowledged.items() if kept.get(uid) != digest]
        left = len(list((Path(name) / "data" / "spool" / "tmp").iterdir()))
    print(
        f"{len(senders.acknowledged)} acknowledged in {seconds:.0f} s, killed: {dict(killed)}, {senders.again} tries broken off:"
        f" {len(lost)} lost or damaged, {len(kept) - len(senders.acknowledged)} too many, {left} temporary files left"
    )
    return 1 if lost or left or len(kept) != len(senders.acknowledged) else 0


if __name__ == "__main__":
    sys.exit(main())
