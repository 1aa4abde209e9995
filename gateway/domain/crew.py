"""The workers that there are, and why a job waits for none of them or for one of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.job import ANY_DEVICE

HERE = 60.0
"""Seconds after which a worker that has said nothing counts as gone; it says something three times as often."""

PATIENCE = 10.0
"""Seconds that a job waits for memory although nothing runs beside it: idle workers let go of their models meanwhile."""

NO_WORKER, NO_DEVICE, NO_MEMORY, MEMORY = "NO_WORKER", "NO_DEVICE", "NO_MEMORY", "MEMORY"
"""Codes with which the reason begins why a job waits."""


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A model that is open in a worker."""

    digest: str
    held_mib: int  # by its process, after its last job


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """What a worker says of itself."""

    owner: str
    host: str
    devices: tuple[str, ...]
    memory_mib: int  # the most that one job could have
    models: tuple[OpenModel, ...] = ()  # the one used longest ago first
    opened: int = 0  # how often it has opened a model since it started


@dataclass(frozen=True, kw_only=True)
class Room:
    """What memory a worker has for a job."""

    host: str  # whose memory it is
    free_mib: int  # now, with all its idle models closed
    total_mib: int  # were nothing else there


def nobody_can(device: str, needs_mib: int | None, workers: Sequence[WorkerState]) -> str:
    """Why none of these workers can do such a job: a code and a sentence; empty where one can."""
    if not workers:
        return f"{NO_WORKER}: no worker is there; start one with `hilum worker` or `hilum serve`"
    able = [one for one in workers if device in (ANY_DEVICE, *one.devices)]
    if not able:
        found = sorted({device for one in workers for device in one.devices})
        return f"{NO_DEVICE}: the model needs {device}, and no worker has it (those that are there have {', '.join(found)})"
    most = max(one.memory_mib for one in able)
    if needs_mib is not None and needs_mib > most:
        return f"{NO_MEMORY}: the job needs about {needs_mib} MiB, and no worker can have more than {most} MiB"
    return ""


def not_now(needs_mib: int | None, room: Room, promised_mib: int, running: int, waited: float | None) -> str:
    """Why a job does not start yet: a code and a sentence; empty where it does.

    ``promised_mib``: what jobs at work on this host will still take; ``running``: how many there are; ``waited``: seconds
    since the job was first told to wait. One that is alone runs anyway: what it needs is an estimate.
    """
    free = room.free_mib - promised_mib
    if needs_mib is None or needs_mib <= free:
        return ""
    if not running and waited is not None and waited >= PATIENCE:
        return ""
    return f"{MEMORY}: the job needs about {needs_mib} MiB, and {max(free, 0)} MiB are free on {room.host}"
