"""What of a finished job goes where, and when the next try is due. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gateway.domain.errors import ConfigurationError
from gateway.domain.ids import DestinationName, JobId, digest
from gateway.domain.job import DeliveryDraft, Job, Payload

FIRST_DELAY = 5.0  # seconds
LONGEST_DELAY = 300.0  # seconds; never more, so that a destination that is back is found within it
GIVE_UP_AFTER = 72 * 3600.0  # seconds
_SPREAD = 0.2  # of a delay, to either side


def plan(
    job: Job,
    roles_by_destination: Mapping[DestinationName, Collection[str]],
    messages: Sequence[DeliveryDraft] = (),
) -> tuple[DeliveryDraft, ...]:
    """One draft for each object and PACS that takes its role, in the order of ``job.deliver``; then the messages.

    ``roles_by_destination`` knows every DICOM and DICOMweb destination; ``messages`` are the drafts for the job's HL7
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
        for draft in _objects(job, name, roles_by_destination[name])
    ]
    return (*objects, *(replace(message, held=bool(objects)) for message in messages))


def control_id(job: JobId, destination: DestinationName) -> str:
    """MSH-10 of the message about a job for a destination: 20 characters, the same after every restart."""
    return digest("oru", job, destination)[:20].upper()


def next_try(attempts: int, first_try: float, now: float, jitter: float) -> float | None:
    """When to try again after ``attempts`` failed tries, in seconds since the epoch; None after 72 h: give up.

    5 s, doubled with each try up to 5 min, 20 % shorter or longer by ``jitter`` in [0, 1) but never above 5 min.
    """
    if now - first_try >= GIVE_UP_AFTER:
        return None
    doublings = min(max(attempts - 1, 0), 16)
    delay = min(FIRST_DELAY * float(1 << doublings), LONGEST_DELAY)
    return now + min(delay * (1 - _SPREAD + 2 * _SPREAD * jitter), LONGEST_DELAY)


def _objects(job: Job, destination: DestinationName, roles: Collection[str]) -> list[DeliveryDraft]:
    return [
        DeliveryDraft(
            job_id=job.id,
            destination=destination,
            payload=Payload.OBJECT,
            role=one.role,
            key=one.sop_instance_uid,
            file=one.file,
            sop_class_uid=one.sop_class_uid,
        )
        for one in (job.outcome.objects if job.outcome else ())
        if one.role in roles
    ]
