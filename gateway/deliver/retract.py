"""Who has to be told that a result is withdrawn. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gateway.domain.ids import DestinationName
from gateway.domain.job import Delivery, Payload
from gateway.domain.roles import NOTICES
from gateway.domain.states import DeliveryState

_NEVER_THERE = (DeliveryState.HELD, DeliveryState.SUBSTITUTED, DeliveryState.WITHDRAWN)


def may_have_arrived(delivery: Delivery) -> bool:
    """Whether the destination may have it: who was sent something and did not answer may have it all the same."""
    if delivery.draft.role in NOTICES:
        return False
    if delivery.state is DeliveryState.WITHDRAWN and delivery.draft.payload is Payload.MESSAGE:
        return delivery.attempts > 0  # a correction was to take its place
    if delivery.state in _NEVER_THERE:
        return False
    if delivery.state in (DeliveryState.WAITING, DeliveryState.DEAD):
        return delivery.stored_at is not None or (delivery.attempts > 0 and delivery.state is DeliveryState.WAITING)
    return True


def objects_to_withdraw(
    deliveries: Sequence[Delivery], takes_notes: Collection[DestinationName]
) -> Mapping[DestinationName, tuple[str, ...]]:
    """SOP Instance UIDs that each destination may have and would be told about, sorted."""
    found: dict[DestinationName, set[str]] = {}
    for one in deliveries:
        destination = one.draft.destination
        if one.draft.payload is Payload.OBJECT and destination in takes_notes and may_have_arrived(one):
            found.setdefault(destination, set()).add(one.draft.key)
    return {name: tuple(sorted(keys)) for name, keys in sorted(found.items())}


def was_reported(deliveries: Sequence[Delivery]) -> bool:
    """Whether an EHR may have been told of the result."""
    return any(one.draft.payload is Payload.MESSAGE and may_have_arrived(one) for one in deliveries)
