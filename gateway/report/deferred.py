"""Application acknowledgements that come later than at once (HL7 v2.5.1 2.9.3). Pure.

The receiver has accepted the message (CA): it is safe there, and nothing is sent again because of silence. Whether it is
filed, its application says later, by MSA-2: on the same connection or to our own port.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gateway.domain.job import Delivery, Receipt, Verdict
from gateway.hl7.acknowledgement import receipt_of


@dataclass(frozen=True)
class Patience:
    """How long the application is waited for, and what its silence means."""

    seconds: float  # after CA
    tolerant: bool  # whether a message of which nothing was heard counts as delivered; else it is a dead letter


def application_said(delivery: Delivery, message: bytes, patience: Patience, now: float) -> Receipt:
    """What is known of a message that was accepted: ACCEPTED and REJECTED as its application says, MISSING (send it again)
    for AE, RETRY (ask again) while it is silent and there is time."""
    if delivery.application is not None:
        code, text = delivery.application
        said = receipt_of(code, text, message)
        verdict = Verdict.MISSING if said.verdict is Verdict.RETRY else said.verdict
        return replace(said, verdict=verdict, answer=f"CA, then {said.answer}")
    if delivery.last_answer.startswith("CA, then") or not delivery.last_answer.startswith("CA"):
        # It has answered already, or knows the original mode only and has answered for good.
        return Receipt(verdict=Verdict.ACCEPTED, answer=delivery.last_answer)
    until = (now if delivery.stored_at is None else delivery.stored_at) + patience.seconds
    if now < until:
        at = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        return Receipt(verdict=Verdict.RETRY, answer=f"CA; the application has until {at} to answer")
    answer = f"CA, but no application acknowledgement within {patience.seconds:g} s"
    return Receipt(verdict=Verdict.ACCEPTED if patience.tolerant else Verdict.REJECTED, answer=answer)
