"""A storage commitment report on an association of our own: we call as SCP, which takes role selection (PS3.7 D.3.3.4)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role
from pynetdicom.association import Association

from gateway.domain.errors import NoAnswer
from gateway.receive.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE

Associate = Callable[..., AbstractContextManager[Association]]
"""Opens an association for presentation contexts and ``roles``, released at the end."""


def say_report(associate: Associate, event_type: int, information: Dataset) -> int | None:
    """Sends N-EVENT-REPORT and returns the status of the response, None where there was none; raises NoAnswer.

    A peer that ignores role selection is told all the same: it has asked for the report.
    """
    role = build_role(PUSH_MODEL, scp_role=True)
    with associate([build_context(PUSH_MODEL)], roles=[role]) as association:
        if not association.accepted_contexts:
            raise NoAnswer("the peer takes no storage commitment report")
        context = association.accepted_contexts[0]
        context._as_scp = True  # pynetdicom would not send it where the peer has ignored our role
        try:
            answer, _ = association.send_n_event_report(information, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        except (RuntimeError, ValueError, OSError) as error:
            raise NoAnswer("the peer ended the association") from error
    status = answer.get("Status")
    return None if status is None else int(status)
