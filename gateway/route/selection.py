"""Which jobs a study gives: rules say what to run, the model's manifest says on which series. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.bundle.manifest import Manifest
from gateway.domain.context import Order
from gateway.domain.ids import DestinationName, InputSetId, JobId, ModelName, Sha256, digest
from gateway.domain.job import JobDraft, NamedSeries, OnRefusal, Priority
from gateway.domain.study import Series, Study
from gateway.route.inputs import Choice, NoChoice, Wanted, choose
from gateway.route.inputs import unfit as unfit_input
from gateway.route.parts import RoutedPart, choose_for_parts
from gateway.route.priors import NO_PRIORS, Priors
from gateway.route.rules import Expression, compile_expression


@dataclass(frozen=True, kw_only=True)
class Model:
    """A configured model, as far as routing knows it."""

    name: ModelName  # the site's name for it
    manifest: Manifest
    digest: Sha256  # of the bundle
    select: Expression  # the manifest's series selector, compiled
    others: tuple[Expression, ...] = ()  # those of its further inputs
    parts: tuple[RoutedPart, ...] = ()  # of a fusion

    @property
    def joint(self) -> bool:
        """Whether one answer is about several series."""
        return bool(self.manifest.inputs or self.parts)

    @property
    def takes_prior(self) -> bool:
        """Whether it, or a part of it, takes a series of an earlier study."""
        return any(each.prior for wanted in (self.wanted, *(part.wanted for part in self.parts)) for each in wanted)

    def choose(self, study: Study, references: Sequence[Series], priors: Priors) -> Choice | NoChoice:
        """The series of a joint answer; the one that results lie on is one of ``references``."""
        if self.parts:
            return choose_for_parts(self.wanted, self.parts, study, references, priors)
        return choose(self.wanted, study, references, priors=priors)

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """Its inputs, the reference first."""
        pairs = zip(self.manifest.series, (self.select, *self.others), strict=True)
        return tuple(Wanted(input=item, select=select) for item, select in pairs)


def make_model(name: str, manifest: Manifest, digest: Sha256, where: str) -> Model:
    """A model with its selectors compiled; raises ConfigurationError, which begins with ``where``."""
    select, *others = (
        compile_expression(item.select, f"{where} ({item.name})" if manifest.inputs else where)
        for item in manifest.series
    )
    return Model(name=ModelName(name), manifest=manifest, digest=digest, select=select, others=tuple(others))


def with_parts(model: Model, parts: Mapping[str, Model]) -> Model:
    """A fusion that knows its parts, given by their names in it."""
    if model.manifest.fusion is None:
        return model
    routed = tuple(
        RoutedPart(name=part.name, run=part.run, wanted=parts[part.name].wanted, optional=part.missing == "leave_out")
        for part in model.manifest.fusion.parts
    )
    return replace(model, parts=routed)


@dataclass(frozen=True, kw_only=True)
class RoutingRule:
    """A rule, compiled."""

    name: str
    when: Expression
    run: tuple[ModelName, ...]
    deliver: tuple[DestinationName, ...]
    priority: Priority | None  # None: what the order says
    require: tuple[Expression, ...] = ()  # for each the study must hold a series, before it is released
    on_refusal: OnRefusal | None = None  # None: what the model's manifest says
    due_in: float | None = None  # seconds from the routing of a study to when its results should be there
    require_inputs: bool = False  # and for each input that a model of the rule cannot do without


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What routing decided, and why."""

    jobs: tuple[JobDraft, ...]
    reason: str
    quarantine: bool = False


JobKey = Callable[[Series, InputSetId, Model], JobId]
"""The reference series, all that the job is given, and the model -> the job's id."""


def mixed_patients(study: Study) -> str | None:
    """A sentence, without naming anybody, where a study holds images of more than one patient."""
    patients = {instance.header.patient.key() for instance in study.instances}
    if len(patients) < 2:
        return None
    return f"{len(patients)} different patients under one Study Instance UID; nothing is run until a person has looked"


def matching(study: Study, rules: Sequence[RoutingRule], order: Order | None = None) -> list[RoutingRule]:
    """The rules that at least one series of the study meets."""
    return [rule for rule in rules if any(rule.when.holds(study, series, order) for series in study.series)]


def unmet(study: Study, rule: RoutingRule, models: Mapping[ModelName, Model]) -> tuple[str, ...]:
    """What the rule requires and no series of the study is, as the rule words it."""
    conditions = [
        expression.text
        for expression in rule.require
        if not any(expression.holds(study, series) for series in study.series)
    ]
    inputs = [
        f"the input {wanted.input.name} of {name}"
        for name, wanted in needed(rule, models)
        if all(unfit_input(wanted, study, series) for series in study.series)
    ]
    return (*conditions, *inputs)


def needed(rule: RoutingRule, models: Mapping[ModelName, Model]) -> list[tuple[ModelName, Wanted]]:
    """The inputs, and their models, that a study is held for."""
    if not rule.require_inputs:
        return []
    return [
        (name, each)
        for name in rule.run
        for wanted in (models[name].wanted, *(part.wanted for part in models[name].parts if not part.optional))
        for each in wanted
        if each.input.missing == "refuse" and not each.prior  # an earlier study does not come with this one
    ]


def decide(
    study: Study,
    rules: Sequence[RoutingRule],
    models: Mapping[ModelName, Model],
    key: JobKey,
    order: Order | None = None,
    priors: Priors = NO_PRIORS,
) -> Decision:
    """Jobs for a complete study, its order and its priors, or none and why."""
    if reason := mixed_patients(study):
        return Decision(jobs=(), reason=reason, quarantine=True)
    if not study.series:
        return Decision(jobs=(), reason="the study holds only results of our own")
    drafts: dict[JobId, JobDraft] = {}

    def add(draft: JobDraft) -> None:
        drafts[draft.id] = _merge(drafts[draft.id], draft) if draft.id in drafts else draft

    reasons: list[str] = []
    for rule in rules:
        series = [item for item in study.series if rule.when.holds(study, item, order)]
        if not series:
            reasons.append(f"rule {rule.name!r}: condition false for every series")
        for name in rule.run if series else ():
            done = _run(rule, models[name], models, study, series, priors, add, key, _urgency(rule, order))
            reasons.append(f"rule {rule.name!r}: {done}")
    return Decision(jobs=tuple(drafts.values()), reason="; ".join(reasons) or "no rules are configured")


def _run(
    rule: RoutingRule,
    model: Model,
    models: Mapping[ModelName, Model],
    study: Study,
    series: Sequence[Series],
    priors: Priors,
    add: Callable[[JobDraft], None],
    key: JobKey,
    priority: Priority,
) -> str:
    """Applies a model, or the one that its manifest names in its place, and says so; no model comes twice."""
    said: list[str] = []
    tried: set[ModelName] = set()
    following: Model | None = model
    while following is not None and following.name not in tried:
        tried.add(following.name)
        done = _apply(rule, following, study, series, priors, add, key, priority)
        if isinstance(done, str):
            return "; instead ".join([*said, done])
        said.append(f"{following.name} is not run: {done.reason}" if following.joint else done.reason)
        following = next((item for item in models.values() if item.manifest.name == done.instead), None)
    return "; ".join(said)


def _apply(
    rule: RoutingRule,
    model: Model,
    study: Study,
    series: Sequence[Series],
    priors: Priors,
    add: Callable[[JobDraft], None],
    key: JobKey,
    priority: Priority,
) -> str | NoChoice:
    """Adds a model's jobs and says what was chosen, or why nothing was."""

    def draft(reference: Series, inputs: InputSetId, choice: Choice | None = None) -> JobDraft:
        return JobDraft(
            id=key(reference, inputs, model),
            study_uid=study.uid,
            series_uid=reference.uid,
            input_set=inputs,
            model=model.name,
            model_digest=model.digest,
            rule=rule.name,
            deliver=rule.deliver,
            priority=priority,
            sender=reference.instances[0].calling_ae,
            due_in=rule.due_in,
            device=model.manifest.resources.device,
            voxels=_voxels([one for _, one in choice.series] if choice else [reference]),
            on_refusal=rule.on_refusal or OnRefusal(model.manifest.on_refusal),
            flags=choice.flags if choice else (),
            inputs=tuple(_named(name, one, study) for name, one in choice.series) if choice else (),
        )

    if model.joint:
        choice = model.choose(study, series, priors)
        if isinstance(choice, NoChoice):
            return choice
        add(draft(choice.series[0][1], joint_input_set(choice.series), choice))
        names = ", ".join(f"{name} = {_told(one, study)}" for name, one in choice.series)
        why = f" ({choice.reason})" if choice.reason else ""
        return f"{model.name} on series {names}{why}"
    chosen = [item for item in series if unfit(model, study, item) is None]
    for item in chosen:
        add(draft(item, item.input_set()))
    if chosen:
        return f"{model.name} on {len(chosen)} of {len(study.series)} series"
    return NoChoice(reason=f"no series fits {model.name} ({unfit(model, study, series[0])})")


def _named(name: str, series: Series, study: Study) -> NamedSeries:
    of = series.first.study_uid
    return NamedSeries(name=name, series_uid=series.uid, study_uid=None if of == study.uid else of)


def _told(series: Series, study: Study) -> str:
    number, of = series.first.series_number or series.uid, series.first.study_uid
    return number if of == study.uid else f"{number} of the earlier study {of}"


def _urgency(rule: RoutingRule, order: Order | None) -> Priority:
    """The rule's priority, or the order's where the rule leaves it to that."""
    if rule.priority is not None:
        return rule.priority
    said = order.priority if order else ""
    if said == "STAT":
        return Priority.STAT
    return Priority.URGENT if said in ("ASAP", "PREOP", "CALLBACK", "TIMING CRITICAL") else Priority.ROUTINE


def _merge(first: JobDraft, second: JobDraft) -> JobDraft:
    """Two rules that ask for the same work: it is done once, for both, at the sooner priority."""
    return replace(
        first,
        deliver=tuple(dict.fromkeys((*first.deliver, *second.deliver))),
        priority=min(first.priority, second.priority),
        due_in=min((due for due in (first.due_in, second.due_in) if due is not None), default=None),
        on_refusal=next(one for one in OnRefusal if one in (first.on_refusal, second.on_refusal)),
    )


def unfit(model: Model, study: Study, series: Series) -> str | None:
    """Why a model does not take a series (the reference, where it takes several), or None where it does."""
    return unfit_input(model.wanted[0], study, series)


def joint_input_set(series: Sequence[tuple[str, Series]]) -> InputSetId:
    """Names exactly these series, each for its input."""
    return InputSetId(digest("inputs", *(f"{name} {one.input_set()}" for name, one in series)))


def _voxels(series: Sequence[Series]) -> int:
    headers = [item.header for one in series for item in one.instances]
    return sum(header.rows * header.columns * header.frames for header in headers)
