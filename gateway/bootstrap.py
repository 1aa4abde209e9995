"""The only place where adapters meet ports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from starlette.types import ASGIApp

from gateway import readiness
from gateway.bundle.admitted import check_accepted, check_pin
from gateway.bundle.files import bundle_digest, check_weights, read_manifest, resolve_bundle
from gateway.bundle.fused import check_parts, pinned
from gateway.bundle.input import Instead
from gateway.bundle.signature import check_signature
from gateway.deliver.commitment import CommitmentReports, StorageCommitment
from gateway.deliver.cstore import CStorePacs
from gateway.deliver.dimse import Dialer, NoAssociation
from gateway.deliver.dispatch import Dispatcher, Limits, Prove, by_reading_back, through_ehr, through_pacs
from gateway.deliver.settings import DicomDestination, DicomTimeouts, DicomwebDestination
from gateway.deliver.stow import StowPacs
from gateway.domain.context import Subject
from gateway.domain.errors import BundleInvalid, ConfigurationError, NoAnswer, ReportRefused
from gateway.domain.ids import AETitle, DestinationName, JobId, ModelName, Sha256
from gateway.domain.job import Edition, Job, OnRefusal, Priority, ReportKind
from gateway.domain.messages import Outcome
from gateway.domain.ports import Broker, Ehr, Pacs
from gateway.domain.roles import MESSAGE, WITHDRAWAL
from gateway.domain.study import Header, Study
from gateway.hl7.server import MllpServer
from gateway.hold.cfind import CFindSource
from gateway.hold.holder import Holder, Wish
from gateway.hold.inquirer import Inquirer, Source
from gateway.hold.qido import QidoSource
from gateway.hold.settings import Query, WebQuery
from gateway.letters import Compose, Letters, WrittenReport
from gateway.orders.inbox import OrderInbox
from gateway.orders.linker import Linker
from gateway.pipeline import Pipeline
from gateway.receive.admission import is_peer
from gateway.receive.commitment import StorageCommitmentPushModel, StorageCommitmentReports
from gateway.receive.commitment_association import say_report
from gateway.receive.commitment_scp import CommitmentReporter, Report, StorageCommitmentRequests
from gateway.receive.conversation import AssociationLimits, Conversations
from gateway.receive.dimse import DimseNode
from gateway.receive.mpps import PerformedProcedureSteps
from gateway.receive.receiver import Receiver
from gateway.receive.service import DimseService
from gateway.report import fhir, mdm, oru
from gateway.report.content import ReportContent
from gateway.report.document import pdf_of
from gateway.report.fhir_client import FhirEhr
from gateway.report.mllp import MllpEhr, application_answers, into
from gateway.report.segments import filler
from gateway.report.settings import EhrDestination, FhirDestination, Hl7Destination
from gateway.retraction import Retraction
from gateway.route.rules import compile_expression
from gateway.route.selection import Model, RoutingRule, make_model, matching, needed, unmet, with_parts
from gateway.settings import Destination, Settings
from gateway.store.ledger import SqlLedger, open_ledger
from gateway.store.spool import LocalSpool
from gateway.web.access import read_tokens
from gateway.web.app import Parts, make_app
from gateway.web.pages import default_directory
from gateway.web.pixels import PixelTool


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
            check_pin(name, entry.digest, digest)
            if settings.models_trust is not None and not entry.bundle.startswith("builtin:"):
                check_signature(bundle, digest, settings.models_trust.keys, require=settings.models_trust.require)
            check_accepted(settings.data_dir, name, manifest, digest)
        except BundleInvalid as error:
            raise ConfigurationError(f"models.{name}: {error.message}") from error
        models[ModelName(name)] = make_model(name, manifest, digest, f"models.{name}: input.select of its manifest")
    _check_substitutes(models)
    return {name: _with_parts(name, model, models) for name, model in models.items()}


def _with_parts(name: ModelName, model: Model, models: Mapping[ModelName, Model]) -> Model:
    """A fusion with its parts, each a model of the site and admitted as such; raises ConfigurationError."""
    known = [(one.manifest.name, one.digest, one) for one in models.values()]
    try:
        parts = pinned(model.manifest, known)
        check_parts(model.manifest, {part: one.manifest for part, one in parts.items()})
    except BundleInvalid as error:
        raise ConfigurationError(f"models.{name}: {error.message}") from error
    return with_parts(model, parts)


def _check_substitutes(models: Mapping[ModelName, Model]) -> None:
    """Raises ConfigurationError where a manifest names a model in its place that is not configured."""
    known = {model.manifest.name for model in models.values()}
    for name, model in models.items():
        for item in model.manifest.series:
            if isinstance(item.missing, Instead) and item.missing.run not in known:
                raise ConfigurationError(
                    f"models.{name}: without the input {item.name} its manifest runs {item.missing.run!r} instead, "
                    "which is not among the models: add it"
                )


def make_rules(settings: Settings) -> list[RoutingRule]:
    """Compiles the rules; raises ConfigurationError that names the rule."""
    return [
        RoutingRule(
            name=rule.name,
            when=compile_expression(rule.when, f"rules.{number}.when (rule {rule.name!r})"),
            run=tuple(ModelName(name) for name in rule.run),
            deliver=tuple(DestinationName(name) for name in rule.deliver),
            priority=None if rule.priority == "order" else Priority[rule.priority.upper().replace("-", "_")],
            require=tuple(
                compile_expression(text, f"rules.{number}.hold.require (rule {rule.name!r})")
                for text in rule.hold.require
            ),
            due_in=rule.deadline,
            on_refusal=None if rule.on_refusal is None else OnRefusal(rule.on_refusal),
            require_inputs=rule.hold.require_inputs,
        )
        for number, rule in enumerate(settings.rules)
    ]


def make_inquiries(settings: Settings, ledger: SqlLedger, tell: Callable[[], None]) -> dict[Query, Inquirer]:
    """Who asks each source that a peer names; ``tell`` is called after each answer. Raises ConfigurationError."""
    queries = dict.fromkeys(peer.query for peer in settings.dicom.peers if peer.query)
    return {query: Inquirer(make_source(query, settings), ledger, SystemClock(), tell) for query in queries}


def make_source(query: Query, settings: Settings) -> Source:
    """Whoever can say how much there is of a study; raises ConfigurationError."""
    if isinstance(query, WebQuery):
        return QidoSource(query)
    times = DicomTimeouts(connect=query.timeout, acse=query.timeout, dimse=query.timeout, network=query.timeout)
    peer = DicomDestination(
        kind="dicom", ae_title=query.ae_title, host=query.host, port=query.port, tls=query.tls, timeouts=times
    )
    dialer = Dialer(peer, settings.dicom.ae_title)

    @contextmanager
    def associate(contexts: Sequence[PresentationContext]) -> Iterator[Association]:
        try:
            with dialer.association(contexts) as association:
                yield association
        except NoAssociation as error:
            raise NoAnswer(error.receipt.answer) from error

    return CFindSource(query.ae_title, associate)


def make_holder(
    settings: Settings,
    ledger: SqlLedger,
    rules: Sequence[RoutingRule],
    inquiries: Mapping[Query, Inquirer],
    linker: Linker | None = None,
    models: Mapping[ModelName, Model] | None = None,
) -> Holder:
    """Weighs the evidence about open studies, each by the rules that it meets; ``models`` for rules that ask for inputs."""
    known = models or {}
    holds = {rule.name: rule.hold for rule in settings.rules}

    def wishes(study: Study) -> Sequence[Wish]:
        order = linker.order_of(study.uid) if linker else None
        found = [
            Wish(
                hold=holds[rule.name],
                required=len(rule.require) + len(needed(rule, known)),
                unmet=unmet(study, rule, known),
            )
            for rule in matching(study, rules, order)
        ]
        return found or [Wish(hold=settings.hold)]

    def inquiry_of(title: AETitle, address: str) -> Inquirer | None:
        peers = (peer for peer in settings.dicom.peers if peer.query and is_peer(peer, title, address))
        peer = next(peers, None)
        return inquiries[peer.query] if peer and peer.query else None

    return Holder(
        ledger,
        SystemClock(),
        holds=[*holds.values(), settings.hold],
        wishes=wishes,
        inquiry_of=inquiry_of,
        inquiries=list(inquiries.values()),
    )


def make_pipeline(
    settings: Settings,
    ledger: SqlLedger,
    spool: LocalSpool,
    broker: Broker,
    inquiries: Mapping[Query, Inquirer] | None = None,
    inbox: OrderInbox | None = None,
) -> Pipeline:
    """The pipeline with everything it needs; ``inbox`` where the site takes messages from its EHR."""
    models, rules = make_models(settings), make_rules(settings)
    linker = None if inbox is None else Linker(ledger, spool)
    archives = {
        DestinationName(name): item
        for name, item in settings.destinations.items()
        if not isinstance(item, EhrDestination)
    }
    return Pipeline(
        ledger=ledger,
        spool=spool,
        broker=broker,
        holder=make_holder(settings, ledger, rules, inquiries or {}, linker, models),
        rules=rules,
        models=models,
        stranded_after=settings.jobs.stranded_after,
        inbox=inbox,
        linker=linker,
        roles={name: frozenset(item.roles) for name, item in archives.items()},
        fallbacks={name: item.substitutes for name, item in archives.items()},
        retraction=make_retraction(settings, ledger, spool),
        letters=Letters(
            ledger,
            spool,
            {
                DestinationName(name): make_composer(item, models, spool, ledger)
                for name, item in settings.destinations.items()
                if isinstance(item, EhrDestination)
            },
            silent=[
                DestinationName(name)
                for name, item in settings.destinations.items()
                if isinstance(item, EhrDestination) and not item.refusals
            ],
        ),
    )


def make_retraction(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> Retraction:
    """What takes results back."""

    def cancel(job: JobId, why: str) -> None:
        with suppress(ReportRefused):  # cancelled before, by a recall that was interrupted or by a person
            ledger.request_report(job, ReportKind.CANCELLED, reason=why)

    return Retraction(
        ledger=ledger,
        spool=spool,
        clock=SystemClock(),
        takes_notes=frozenset(
            DestinationName(name)
            for name, item in settings.destinations.items()
            if not isinstance(item, EhrDestination) and item.rejection_notes
        ),
        cancel_report=cancel,
    )


def make_composer(
    profile: EhrDestination, models: Mapping[ModelName, Model], spool: LocalSpool, ledger: SqlLedger
) -> Compose:
    """What writes reports for one EHR."""

    def compose(job: Job, source: Header, subject: Subject, edition: Edition, control_id: str) -> WrittenReport:
        model = models.get(job.draft.model)
        intended_use = model.manifest.intended_use if model else ""
        content = ReportContent.of(job, source, edition, control_id, intended_use)
        content = replace(
            content, subject=subject, pdf=pdf_of(job.outcome, spool), replaced=tuple(_results_before(ledger, job))
        )
        return WrittenReport(
            content=_written(content, profile),
            role=WITHDRAWAL if edition.kind is ReportKind.CANCELLED else MESSAGE,
            patient_key=content.patient_key,
            report_key=content.filler_number,
            filed_under=_filed_under(content, profile),
        )

    return compose


def _results_before(ledger: SqlLedger, job: Job) -> Iterator[Outcome]:
    """The results in whose place that of a job is."""
    before = job.supersedes
    while before is not None:
        earlier = ledger.job(before)
        if earlier.outcome is not None and earlier.outcome.status == "complete":
            yield earlier.outcome
        before = earlier.supersedes


def make_inbox(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> OrderInbox | None:
    """What takes messages from the EHR, where the site has a port for them."""
    if settings.hl7 is None:
        return None
    return OrderInbox(ledger, spool, settings.hl7.conventions(), settings.hl7.codec)


def make_listener(settings: Settings, inbox: OrderInbox | None) -> MllpServer | None:
    """The port for messages from the EHR; raises ConfigurationError where a TLS file cannot be used."""
    return None if settings.hl7 is None or inbox is None else MllpServer(settings.hl7, inbox.take)


def _filed_under(content: ReportContent, profile: EhrDestination) -> str:
    """The number of an order by which the receiver files the report, where it is not the report's own."""
    if not isinstance(profile, Hl7Destination) or profile.message == "mdm" or profile.filler_number == "own":
        return ""
    return filler(content, profile)


def _written(content: ReportContent, profile: EhrDestination) -> bytes:
    if isinstance(profile, FhirDestination):
        return fhir.build(content, profile)
    return mdm.build(content, profile) if profile.message == "mdm" else oru.build(content, profile)


def make_ehr(destination: EhrDestination) -> Ehr:
    """The adapter of a destination of reports; raises ConfigurationError where a file cannot be used."""
    return FhirEhr(destination) if isinstance(destination, FhirDestination) else MllpEhr(destination)


def make_reporter(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> CommitmentReporter:
    """Who answers for what we have stored."""

    def say(title: AETitle, address: str, said: Report) -> int | None:
        peer = next((peer for peer in settings.dicom.peers if is_peer(peer, title, address)), None)
        if peer is None or peer.commitment is None:
            raise NoAnswer(
                "the association ended first, and dicom.peers does not say where else to report (commitment)"
            )
        there = DicomDestination(kind="dicom", ae_title=title, **dict(peer.commitment))
        try:
            return say_report(Dialer(there, settings.dicom.ae_title).association, *said)
        except NoAssociation as error:
            raise NoAnswer(error.receipt.answer) from error

    return CommitmentReporter(ledger, spool, SystemClock(), settings.dicom.ae_title, say)


def make_node(
    settings: Settings, ledger: SqlLedger, spool: LocalSpool, reporter: CommitmentReporter | None = None
) -> DimseNode:
    """The DICOM node that fills the ledger."""
    receiver = Receiver(spool, ledger, SystemClock(), settings.dicom)
    return DimseNode(receiver, settings.dicom, _services(settings, ledger, spool, reporter))


def make_conversations(
    settings: Settings, ledger: SqlLedger, spool: LocalSpool, limits: AssociationLimits
) -> Conversations:
    """What serves connections of a node in another process."""
    receiver = Receiver(spool, ledger, SystemClock(), settings.dicom)
    return Conversations(receiver, settings.dicom, _services(settings, ledger, spool, None), limits)


def _services(
    settings: Settings, ledger: SqlLedger, spool: LocalSpool, reporter: CommitmentReporter | None
) -> list[DimseService]:
    clock = SystemClock()
    commitment = StorageCommitmentPushModel(
        StorageCommitmentReports(CommitmentReports(ledger, clock).take),
        StorageCommitmentRequests(ledger, clock, reporter or make_reporter(settings, ledger, spool)),
    )
    return [commitment, PerformedProcedureSteps(ledger)]


def make_web(settings: Settings, ledger: SqlLedger, spool: LocalSpool) -> tuple[ASGIApp, PixelTool]:
    """The web application, and the decoding processes to close after it; raises ConfigurationError."""
    scratch = settings.data_dir / "web"
    scratch.mkdir(parents=True, exist_ok=True)
    parts = Parts(
        settings=settings.http,
        archive=ledger,
        spool=spool,
        receiver=Receiver(spool, ledger, SystemClock(), settings.dicom),
        tokens=read_tokens(settings.http.tokens_file),
        scratch=scratch,
        viewer=settings.http.viewer_dir or default_directory(),
        ready=readiness.parts(settings, ledger, spool),
    )
    return make_app(parts)


def make_pacs(destination: DicomDestination | DicomwebDestination, ae_title: str) -> Pacs:
    """The adapter of a destination of objects; `ae_title` is who we are."""
    if isinstance(destination, DicomDestination):
        return CStorePacs(destination, ae_title)
    return StowPacs(destination)


def make_destination(settings: Settings, name: str) -> Pacs | Ehr:
    """The adapter of one destination."""
    destination = settings.destinations[name]
    if isinstance(destination, EhrDestination):
        return make_ehr(destination)
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
    if isinstance(destination, EhrDestination):
        if isinstance(destination, FhirDestination):
            return [Dispatcher(name, through_ehr(FhirEhr(destination), spool), ledger, clock)]
        ehr = MllpEhr(destination, into(ledger))
        prove = application_answers(destination, spool, clock)
        return [Dispatcher(name, through_ehr(ehr, spool), ledger, clock, prove=prove, listen=ehr.listen)]
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
