"""Application acknowledgements that come on a connection of their own (HL7 v2.5.1 2.9.3). Pure.

The receiver has accepted the message (CA): it is safe there, and nothing is sent again because of silence. Whether it is
filed, its application says later to our own port, by MSA-2.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.domain.job import Delivery, Receipt, Verdict
from gateway.hl7.acknowledgement import receipt_of


def application_said(delivery: Delivery, message: bytes, patience: float, now: float) -> Receipt:
    """What is known of a message that was accepted: ACCEPTED and REJECTED as its application says, MISSING (send it again)
    for AE, RETRY (ask again) while it is silent. ``patience`` seconds after CA, silence is a rejection: a person must look."""
    if delivery.application is not None:
        code, text = delivery.application
        said = receipt_of(code, text, message)
        verdict = Verdict.MISSING if said.verdict is Verdict.RETRY else said.verdict
        return replace(said, verdict=verdict, answer=f"CA, then {said.answer}")
    if not delivery.last_answer.startswith(
        "CA"
    ):  # the receiver knows the original mode only, and has answered for good
        return Receipt(verdict=Verdict.ACCEPTED, answer=delivery.last_answer)
    if delivery.stored_at is not None and now >= delivery.stored_at + patience:
        answer = f"CA, but no application acknowledgement within {patience:g} s"
        return Receipt(verdict=Verdict.REJECTED, answer=answer)
    return Receipt(verdict=Verdict.RETRY, answer="CA; the application has not answered yet")
