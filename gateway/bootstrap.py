"""The only place where adapters meet ports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from gateway.deliver.commitment import CommitmentReports, StorageCommitment
from gateway.deliver.cstore import CStorePacs
from gateway.deliver.dimse import Dialer
from gateway.deliver.dispatch import Dispatcher, Limits, Prove, by_reading_back, through_ehr, through_pacs
from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.deliver.stow import StowPacs
from gateway.domain.errors import BundleInvalid, ConfigurationError
from gateway.domain.ids import DestinationName, ModelName, Sha256
from gateway.domain.job import Job, Priority
from gateway.domain.ports import Broker, Ehr, Pacs
from gateway.domain.study import Header
from gateway.manifest import bundle_digest, check_weights, read_manifest, resolve_bundle
from gateway.pipeline import Compose, Pipeline
from gateway.receive.commitment import StorageCommitmentReports
from gateway.receive.dimse import DimseNode
from gateway.receive.receiver import Receiver
from gateway.report.mllp import MllpEhr
from gateway.report.oru import OruContent, build
from gateway.report.settings import Hl7Destination
from gateway.route.rules import compile_expression
from gateway.route.selection import Model, RoutingRule
from gateway.settings import Destination, Settings
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
        settings.ledger_url,
        SystemClock(),
        max_failed=settings.jobs.max_failed,
        max_lost=settings.jobs.max_lost,
        durable_intake=settings.dicom.durability == "full",
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
            check_weights(bundle, manifest)
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
    models = make_models(settings)
    archives = {
        DestinationName(name): item
        for name, item in settings.destinations.items()
        if not isinstance(item, Hl7Destination)
    }
    return Pipeline(
        ledger=ledger,
        spool=spool,
        broker=broker,
        clock=SystemClock(),
        rules=make_rules(settings),
        models=models,
        holds={rule.name: rule.hold for rule in settings.rules},
        default_hold=settings.hold,
        roles={name: frozenset(item.roles) for name, item in archives.items()},
        fallbacks={name: item.substitutes for name, item in archives.items()},
        messages={
            DestinationName(name): _composer(item, models)
            for name, item in settings.destinations.items()
            if isinstance(item, Hl7Destination)
        },
    )


def _composer(profile: Hl7Destination, models: Mapping[ModelName, Model]) -> Compose:
    def compose(job: Job, source: Header, control_id: str) -> bytes:
        model = models.get(job.draft.model)
        intended_use = model.manifest.intended_use if model else ""
        return build(OruContent.of(job, source, control_id, intended_use), profile)

    return compose


def make_node(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> DimseNode:
    """The DICOM node that fills the ledger."""
    reports = StorageCommitmentReports(CommitmentReports(ledger, SystemClock()).take)
    return DimseNode(Receiver(spool, ledger, SystemClock(), settings.dicom), settings.dicom, [reports])


def make_pacs(destination: DicomDestination | DicomwebDestination, ae_title: str) -> Pacs:
    """The adapter of a destination of objects; `ae_title` is who we are."""
    if isinstance(destination, DicomDestination):
        return CStorePacs(destination, ae_title)
    return StowPacs(destination)


def make_destination(settings: Settings, name: str) -> Pacs | Ehr:
    """The adapter of one destination."""
    destination = settings.destinations[name]
    if isinstance(destination, Hl7Destination):
        return MllpEhr(destination)
    return make_pacs(destination, settings.dicom.ae_title)


def make_dispatchers(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> list[Dispatcher]:
    """One dispatcher for each destination, or as many as the associations that it takes at once."""
    return [
        dispatcher
        for name, destination in settings.destinations.items()
        for dispatcher in _dispatchers(settings, DestinationName(name), destination, ledger, spool)
    ]


def _dispatchers(
    settings: Settings, name: DestinationName, destination: Destination, ledger: SqlLedger, spool: LocalSpool
) -> list[Dispatcher]:
    clock = SystemClock()
    if isinstance(destination, Hl7Destination):
        return [Dispatcher(name, through_ehr(MllpEhr(destination), spool), ledger, clock)]
    pacs = make_pacs(destination, settings.dicom.ae_title)
    many = destination.limits.associations
    rate = destination.limits.rate
    limits = Limits(batch=destination.limits.batch, per_second=rate / many if rate else None)
    prove = _prove(settings, destination, pacs, ledger, spool)
    return [Dispatcher(name, through_pacs(pacs, spool), ledger, clock, prove=prove, limits=limits) for _ in range(many)]


def _prove(
    settings: Settings,
    destination: DicomDestination | DicomwebDestination,
    pacs: Pacs,
    ledger: SqlLedger,
    spool: LocalSpool,
) -> Prove | None:
    if destination.verify == "none":
        return None
    look = by_reading_back(pacs, spool)
    if destination.verify == "readback" or isinstance(destination, DicomwebDestination):
        return look
    return StorageCommitment(
        Dialer(destination, settings.dicom.ae_title),
        ledger,
        SystemClock(),
        look,
        timeout=destination.commitment.timeout,
        linger=destination.commitment.linger,
    )
