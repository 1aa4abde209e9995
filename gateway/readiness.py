"""Looks at the parts that Hilum is made of, each for itself: what `/readyz` says. No patient, no path, no address is named."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from gateway.domain.errors import HilumError
from gateway.settings import Settings
from gateway.store.ledger import SqlLedger
from gateway.store.lock import silent_for
from gateway.store.spool import LocalSpool
from gateway.submit.broker import broker_state
from gateway.submit.embedded import EmbeddedBroker
from gateway.web.ready import Part

_SILENT = 20.0  # seconds after which a gateway that gives no sign of life takes nothing in


def parts(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> Sequence[Part]:
    """Those that nothing comes in without are vital; a broker or worker that is away delays results, and loses nothing."""
    return (
        Part(name="receiving", look=lambda: _receiving(settings)),
        Part(name="ledger", look=lambda: _ledger(ledger)),
        Part(name="spool", look=lambda: _spool(settings, spool)),
        Part(name="broker", look=lambda: _broker(settings), vital=False),
        Part(name="workers", look=lambda: _workers(settings, ledger), vital=False),
    )


def _receiving(settings: Settings) -> str:
    silent = silent_for(settings.data_dir)
    return "no gateway takes connections" if silent is None or silent > _SILENT else ""


def _ledger(ledger: SqlLedger) -> str:
    try:
        ledger.try_to_write()
    except HilumError:
        return "the ledger cannot be written to"
    return ""


def _spool(settings: Settings, spool: LocalSpool) -> str:
    room = spool.room()
    if room < settings.dicom.refuse_all_below:
        return f"{room:.0%} of the disk is free: nothing is taken (dicom.refuse_all_below)"
    if room < settings.dicom.refuse_new_below:
        return f"{room:.0%} of the disk is free: no new studies are taken (dicom.refuse_new_below)"
    try:
        file = spool.begin(durable=False)
    except HilumError:
        return "the spool cannot be written to"
    file.discard()
    return ""


def _broker(settings: Settings) -> str:
    url = settings.broker.url
    try:
        broker_state(EmbeddedBroker(settings.data_dir).url if url == "embedded" else url)
    except (redis.RedisError, OSError, HilumError):
        return "the broker does not answer: idle workers look for work by themselves"
    return ""


def _workers(settings: Settings, ledger: SqlLedger) -> str:
    if not settings.models:
        return ""
    try:
        return "" if ledger.workers() else "no worker is there"
    except HilumError:
        return "the ledger does not say which workers there are"
