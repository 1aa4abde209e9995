"""The only place where adapters meet ports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from gateway.deliver.cstore import CStorePacs
from gateway.deliver.dispatch import Dispatcher, Send, through_ehr, through_pacs
from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.deliver.stow import StowPacs
from gateway.domain.errors import BundleInvalid, ConfigurationError
from gateway.domain.ids import DestinationName, ModelName, Sha256
from gateway.domain.job import Priority
from gateway.domain.ports import Broker, Clock, Ehr, Pacs
from gateway.manifest import bundle_digest, read_manifest, resolve_bundle
from gateway.pipeline import Pipeline
from gateway.receive.dimse import DimseNode
from gateway.receive.receiver import Receiver
from gateway.report.mllp import MllpEhr
from gateway.report.oru import build
from gateway.report.settings import Hl7Destination
from gateway.route.rules import compile_expression
from gateway.route.selection import Model, RoutingRule
from gateway.settings import Settings
from gateway.store.ledger import SqlLedger, open_ledger
from gateway.store.spool import LocalSpool


class SystemClock:
    """Implements `gateway.domain.ports.Clock`."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()


def make_ledger(settings: Settings) -> SqlLedger:
    """Opens the ledger; raises LedgerError."""
    return open_ledger(
        settings.ledger_url, SystemClock(), max_failed=settings.jobs.max_failed, max_lost=settings.jobs.max_lost
    )


def make_spool(settings: Settings) -> LocalSpool:
    """Opens the spool."""
    return LocalSpool(settings.data_dir / "spool")


def make_models(settings: Settings) -> dict[ModelName, Model]:
    """Reads the manifest of every configured model; raises ConfigurationError that names the model."""
    models = {}
    for name, entry in settings.models.items():
        try:
            bundle = resolve_bundle(entry.bundle, Path.cwd())
            manifest = read_manifest(bundle)
            digest = Sha256(bundle_digest(bundle))
        except BundleInvalid as error:
            raise ConfigurationError(f"models.{name}: {error.message}") from error
        select = compile_expression(manifest.input.select, f"models.{name}: input.select of its manifest")
        models[ModelName(name)] = Model(name=ModelName(name), manifest=manifest, digest=digest, select=select)
    return models


def make_rules(settings: Settings) -> list[RoutingRule]:
    """Compiles the rules; raises ConfigurationError that names the rule."""
    return [
        RoutingRule(
            name=rule.name,
            when=compile_expression(rule.when, f"rules.{number}.when (rule {rule.name!r})"),
            run=tuple(ModelName(name) for name in rule.run),
            deliver=tuple(DestinationName(name) for name in rule.deliver),
            priority=Priority[rule.priority.upper()],
        )
        for number, rule in enumerate(settings.rules)
    ]


def make_pipeline(settings: Settings, ledger: SqlLedger, spool: LocalSpool, broker: Broker) -> Pipeline:
    """The pipeline with everything it needs."""
    profiles = {name: item for name, item in settings.destinations.items() if isinstance(item, Hl7Destination)}
    return Pipeline(
        ledger=ledger,
        spool=spool,
        broker=broker,
        clock=SystemClock(),
        rules=make_rules(settings),
        models=make_models(settings),
        holds={rule.name: rule.hold for rule in settings.rules},
        default_hold=settings.hold,
        roles={
            DestinationName(name): frozenset(item.results)
            for name, item in settings.destinations.items()
            if not isinstance(item, Hl7Destination)
        },
        messages={
            DestinationName(name): lambda content, profile=profile: build(content, profile)  # type: ignore[misc]
            for name, profile in profiles.items()
        },
    )


def make_node(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> DimseNode:
    """The DICOM node that fills the ledger."""
    return DimseNode(Receiver(spool, ledger, SystemClock(), settings.dicom), settings.dicom)


def make_destination(settings: Settings, name: str) -> Pacs | Ehr:
    """The adapter of one destination."""
    destination = settings.destinations[name]
    if isinstance(destination, DicomDestination):
        return CStorePacs(destination, settings.dicom.ae_title)
    if isinstance(destination, DicomwebDestination):
        return StowPacs(destination)
    return MllpEhr(destination)


def make_dispatchers(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> list[Dispatcher]:
    """One dispatcher for each destination."""
    clock: Clock = SystemClock()
    sends: Mapping[str, Send] = {name: _send(make_destination(settings, name), spool) for name in settings.destinations}
    return [Dispatcher(DestinationName(name), send, ledger, clock) for name, send in sends.items()]


def _send(destination: Pacs | Ehr, spool: LocalSpool) -> Send:
    if isinstance(destination, MllpEhr):
        return through_ehr(destination, spool)
    return through_pacs(destination, spool)  # type: ignore[arg-type]
