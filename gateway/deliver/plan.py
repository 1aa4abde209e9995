"""What of a finished job goes where, and when the next try is due. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gateway.domain.errors import ConfigurationError
from gateway.domain.ids import DestinationName, JobId, digest
from gateway.domain.job import Delivery, DeliveryDraft, Job, Payload, Receipt, Verdict
from gateway.domain.messages import ResultObject
from gateway.domain.roles import USUAL_FORM

FIRST_DELAY = 5.0  # seconds
LONGEST_DELAY = 300.0  # seconds; never more, so that a destination that is back is found within it
GIVE_UP_AFTER = 72 * 3600.0  # seconds
_SPREAD = 0.2  # of a delay, to either side

Fallbacks = Mapping[str, Collection[str]]
"""Role -> the roles that go instead where a destination does not take it."""


def plan(
    job: Job,
    roles_by_destination: Mapping[DestinationName, Collection[str]],
    messages: Sequence[DeliveryDraft] = (),
    fallbacks: Mapping[DestinationName, Fallbacks] = {},
) -> tuple[DeliveryDraft, ...]:
    """One draft for each object and PACS that takes its role, in the order of ``job.deliver``; then the messages.

    ``roles_by_destination`` knows every DICOM and DICOMweb destination, ``fallbacks`` what each is sent instead of a role
    that it turns out not to take; ``messages`` are the drafts for the job's HL7
    destinations. `ResultObject.file` is taken as the spool key. Messages are held where there are objects, until those
    have arrived. Raises ConfigurationError for a destination in neither: a result that quietly goes nowhere is lost.
    """
    spoken_to = {message.destination for message in messages}
    destinations = tuple(dict.fromkeys(job.draft.deliver))
    for name in destinations:
        if name not in roles_by_destination and name not in spoken_to:
            raise ConfigurationError(f"job {job.id} is to be delivered to {name!r}, which is not a destination")
    objects = [
        draft
        for name in destinations
        if name in roles_by_destination
        for draft in _objects(job, name, roles_by_destination[name], fallbacks.get(name, {}))
    ]
    return (*objects, *(replace(message, held=bool(objects)) for message in messages))


def control_id(job: JobId, destination: DestinationName, edition: int = 1) -> str:
    """MSH-10 of an edition of the report about a job for a destination: 20 characters, the same after every restart."""
    number = () if edition == 1 else (str(edition),)
    return digest("oru", job, destination, *number)[:20].upper()


def withdrawal_id(job: JobId, destination: DestinationName, edition: int) -> str:
    """MSH-10 of the message before an edition that takes the report away from the order number it was under."""
    return digest("oru under another number", job, destination, str(edition))[:20].upper()


def next_try(attempts: int, first_try: float, now: float, jitter: float) -> float | None:
    """When to try again after ``attempts`` failed tries, in seconds since the epoch; None after 72 h: give up.

    5 s, doubled with each try up to 5 min, 20 % shorter or longer by ``jitter`` in [0, 1) but never above 5 min.
    """
    if now - first_try >= GIVE_UP_AFTER:
        return None
    doublings = min(max(attempts - 1, 0), 16)
    delay = min(FIRST_DELAY * float(1 << doublings), LONGEST_DELAY)
    return now + min(delay * (1 - _SPREAD + 2 * _SPREAD * jitter), LONGEST_DELAY)


def proof_due(delivery: Delivery, finding: Receipt, now: float, jitter: float = 0.5) -> float | None:
    """When to send again (missing) or to ask again (retry) after a proof that failed; None after 72 h, or for good."""
    if finding.verdict not in (Verdict.MISSING, Verdict.RETRY):
        return None
    tries = delivery.attempts if finding.verdict is Verdict.MISSING else delivery.checks
    first = delivery.first_try if delivery.first_try is not None else now
    return next_try(tries, first, now, jitter)


def _objects(
    job: Job, destination: DestinationName, roles: Collection[str], fallbacks: Fallbacks
) -> list[DeliveryDraft]:
    objects = job.outcome.objects if job.outcome else ()
    written = {one.role for one in objects}
    # A form that was not written (the destination is new, the model knows only the usual one) must not be no result.
    wanted = {role if role in written else USUAL_FORM.get(role, role) for role in roles}
    return [_object(job, destination, one, fallbacks) for one in objects if one.role in wanted]


def _object(job: Job, destination: DestinationName, one: ResultObject, fallbacks: Fallbacks) -> DeliveryDraft:
    instead = fallbacks.get(one.role, ())
    rest = {role: roles for role, roles in fallbacks.items() if role != one.role}
    objects = job.outcome.objects if job.outcome else ()
    return DeliveryDraft(
        job_id=job.id,
        destination=destination,
        payload=Payload.OBJECT,
        role=one.role,
        key=one.sop_instance_uid,
        file=one.file,
        sop_class_uid=one.sop_class_uid,
        fallbacks=tuple(_object(job, destination, other, rest) for other in objects if other.role in instead),
    )
