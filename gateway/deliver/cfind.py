"""Whether a peer has an instance: C-FIND on IMAGE level, Study Root (PS3.4 annex C)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from gateway.deliver.dimse import Dialer, NoAssociation
from gateway.deliver.part10 import place
from gateway.domain.ports import ObjectFile

_PENDING = (0xFF00, 0xFF01)


class Presence(Enum):
    """What a look-up says."""

    FOUND = "found by C-FIND"
    MISSING = "C-FIND does not find it"
    UNKNOWN = "C-FIND failed"
    NOT_OFFERED = "the peer offers no C-FIND to verify it with"


def look_up(dialer: Dialer, objects: Sequence[ObjectFile]) -> dict[str, Presence]:
    """Presence of each object by SOP Instance UID. Raises nothing."""
    try:
        with dialer.association([build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
            return {one.sop_instance_uid: _find(association, one) for one in objects}
    except NoAssociation:
        return {one.sop_instance_uid: Presence.UNKNOWN for one in objects}


def _find(association: Association, one: ObjectFile) -> Presence:
    if not association.accepted_contexts:
        return Presence.NOT_OFFERED
    if not association.is_established:
        return Presence.UNKNOWN
    found = False
    try:
        for answer, match in association.send_c_find(_query(one), StudyRootQueryRetrieveInformationModelFind):
            code = answer.get("Status")
            if code in _PENDING and match is not None:
                found = found or match.get("SOPInstanceUID") == one.sop_instance_uid
            elif code != 0:
                return Presence.UNKNOWN
    except (RuntimeError, OSError):
        return Presence.UNKNOWN
    return Presence.FOUND if found else Presence.MISSING


def _query(one: ObjectFile) -> Dataset:
    study, series = place(one.path)
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study
    query.SeriesInstanceUID = series
    query.SOPInstanceUID = one.sop_instance_uid
    return query
