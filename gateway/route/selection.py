"""Which jobs a study gives: rules say what to run, the model's manifest says on which series. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.domain.context import Order
from gateway.domain.ids import DestinationName, JobId, ModelName, Sha256
from gateway.domain.job import JobDraft, OnRefusal, Priority
from gateway.domain.study import Series, Study
from gateway.manifest import Manifest
from gateway.route.rules import Expression


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that the site has admitted."""

    name: ModelName
    manifest: Manifest
    digest: Sha256
    select: Expression


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


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What routing decided, and why."""

    jobs: tuple[JobDraft, ...]
    reason: str
    quarantine: bool = False


JobKey = Callable[[Series, Model], JobId]


def mixed_patients(study: Study) -> str | None:
    """A sentence, without naming anybody, where a study holds images of more than one patient."""
    patients = {instance.header.patient.key() for instance in study.instances}
    if len(patients) < 2:
        return None
    return f"{len(patients)} different patients under one Study Instance UID; nothing is run until a person has looked"


def matching(study: Study, rules: Sequence[RoutingRule], order: Order | None = None) -> list[RoutingRule]:
    """The rules that at least one series of the study meets."""
    return [rule for rule in rules if any(rule.when.holds(study, series, order) for series in study.series)]


def unmet(study: Study, rule: RoutingRule) -> tuple[str, ...]:
    """What the rule requires and no series of the study is, as the rule words it."""
    return tuple(
        expression.text
        for expression in rule.require
        if not any(expression.holds(study, series) for series in study.series)
    )


def decide(
    study: Study,
    rules: Sequence[RoutingRule],
    models: Mapping[ModelName, Model],
    key: JobKey,
    order: Order | None = None,
) -> Decision:
    """Jobs for a complete study and its order, or none and why."""
    if reason := mixed_patients(study):
        return Decision(jobs=(), reason=reason, quarantine=True)
    if not study.series:
        return Decision(jobs=(), reason="the study holds only results of our own")
    drafts: dict[JobId, JobDraft] = {}
    reasons: list[str] = []
    for rule in rules:
        series = [item for item in study.series if rule.when.holds(study, item, order)]
        if not series:
            reasons.append(f"rule {rule.name!r}: condition false for every series")
        for name in rule.run if series else ():
            reasons.append(_apply(rule, models[name], study, series, key, _urgency(rule, order), drafts))
    return Decision(jobs=tuple(drafts.values()), reason="; ".join(reasons) or "no rules are configured")


def _apply(
    rule: RoutingRule,
    model: Model,
    study: Study,
    series: Sequence[Series],
    key: JobKey,
    priority: Priority,
    drafts: dict[JobId, JobDraft],
) -> str:
    chosen = [item for item in series if unfit(model, study, item) is None]
    for item in chosen:
        draft = JobDraft(
            id=key(item, model),
            study_uid=study.uid,
            series_uid=item.uid,
            input_set=item.input_set(),
            model=model.name,
            model_digest=model.digest,
            rule=rule.name,
            deliver=rule.deliver,
            priority=priority,
            sender=item.instances[0].calling_ae,
            due_in=rule.due_in,
            device=model.manifest.resources.device,
            on_refusal=rule.on_refusal or OnRefusal(model.manifest.on_refusal),
        )
        drafts[draft.id] = _merge(drafts[draft.id], draft) if draft.id in drafts else draft
    if chosen:
        return f"rule {rule.name!r}: {model.name} on {len(chosen)} of {len(study.series)} series"
    return f"rule {rule.name!r}: no series fits {model.name} ({unfit(model, study, series[0])})"


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
    """Why a model does not take a series, or None where it does; what only pixels can tell is judged when loading."""
    wanted = model.manifest.input
    first = series.first
    if first.modality not in wanted.modality:
        return f"modality {first.modality or 'unknown'} is not {' or '.join(wanted.modality)}"
    if all("LOCALIZER" in instance.header.image_type[2:] for instance in series.instances):
        return "its images are localizers by their Image Type"  # PS3.3 C.8.2.1.1.1; planned on, not diagnosed from
    slices = sum(instance.header.frames for instance in series.instances)
    if slices < wanted.geometry.slices.min:
        return f"{slices} slices, at least {wanted.geometry.slices.min} needed"
    if slices > wanted.geometry.slices.max:
        return f"{slices} slices, at most {wanted.geometry.slices.max} taken"
    if not model.select.holds(study, series):
        return "the manifest's series selector says no"
    return None
