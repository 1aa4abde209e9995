"""What a DICOM peer has under a SOP Instance UID, compared with our file: by C-GET, else by C-FIND (PS3.4 annex C)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import decode

from gateway.deliver.content import content_digest, shared_values
from gateway.deliver.dimse import MAX_CONTEXTS, Dialer, NoAssociation
from gateway.deliver.part10 import place
from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve Information Model - FIND
_GET = "1.2.840.10008.5.1.4.1.2.2.3"  # and - GET
_PENDING = (0xFF00, 0xFF01)
_MAIN_VALUES = ("SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "ContentDate")
"""Keys of a query that say something of what an instance holds, as far as the peer keeps them."""


def read_back(dialer: Dialer, objects: Sequence[ObjectFile]) -> dict[str, Receipt]:
    """A finding for each SOP Instance UID, over as few associations as there are contexts for. Raises nothing.

    The peer is asked with C-FIND whether it has the instance. Where it also offers C-GET, it is made to send its copy,
    and content is compared; else the values that it returned are.
    """
    findings: dict[str, Receipt] = {}
    pending = list(objects)
    while pending:
        batch = _batch(pending)
        pending = pending[len(batch) :]
        findings.update(_over_one_association(dialer, batch))
    return findings


def _batch(objects: Sequence[ObjectFile]) -> Sequence[ObjectFile]:
    classes: set[str] = set()
    for position, one in enumerate(objects):
        classes.add(one.sop_class_uid)
        if len(classes) > MAX_CONTEXTS - 2:
            return objects[:position]
    return objects


def _over_one_association(dialer: Dialer, objects: Sequence[ObjectFile]) -> dict[str, Receipt]:
    arrived = _Arrivals()
    classes = dict.fromkeys(one.sop_class_uid for one in objects)
    contexts = [build_context(_FIND), build_context(_GET)]
    contexts += [build_context(name, _syntaxes(name, objects)) for name in classes]
    roles = [build_role(name, scp_role=True) for name in classes]
    try:
        with dialer.association(contexts, roles=roles, handlers=[(evt.EVT_C_STORE, arrived)]) as association:
            return {one.sop_instance_uid: _ask(association, one, arrived) for one in objects}
    except NoAssociation as error:
        return {one.sop_instance_uid: _later(f"reading back fails: {error.receipt.answer}") for one in objects}


def _ask(association: Association, one: ObjectFile, arrived: _Arrivals) -> Receipt:
    offered = {context.abstract_syntax for context in association.accepted_contexts}
    if not offered & {_FIND, _GET}:
        return Receipt(verdict=Verdict.UNSUPPORTED, answer="the peer offers neither C-FIND nor C-GET")
    try:
        mine = dcmread(one.path)
        found = _find(association, one, mine) if _FIND in offered else None
        if found is None or (found.verdict is Verdict.ACCEPTED and {_GET, one.sop_class_uid} <= offered):
            copy = _get(association, one, arrived)
            if copy is not None:
                return _compare(mine, copy)
            found = found or Receipt(verdict=Verdict.MISSING, answer="C-GET does not return it")
        return found
    except (RuntimeError, OSError):  # ended between our look and the call; the file is not readable just now
        return _later("reading back fails: the peer ended the association")
    except (ValueError, InvalidDicomError, NotImplementedError, AttributeError):
        return _later("what is read back cannot be compared")


def _find(association: Association, one: ObjectFile, mine: Dataset) -> Receipt:
    matches = []
    for answer, match in association.send_c_find(_query(one), UID(_FIND)):
        code = answer.get("Status")
        if code in _PENDING and match is not None:
            matches.append(match)
        elif code != 0:
            return _later("C-FIND fails" if code is None else f"C-FIND fails with 0x{code:04X}")
    found = next((match for match in matches if match.get("SOPInstanceUID") == one.sop_instance_uid), None)
    if found is None:
        return Receipt(verdict=Verdict.MISSING, answer="C-FIND does not find it")
    same, different = shared_values(mine, found, _MAIN_VALUES)
    if different:
        text = f"the peer has other content under this UID: {', '.join(different)} differ"
        return Receipt(verdict=Verdict.REJECTED, answer=text)
    text = f"found by C-FIND, {', '.join(same)} agree" if same else "found by C-FIND, which says nothing of its content"
    return Receipt(verdict=Verdict.ACCEPTED, answer=text)


def _get(association: Association, one: ObjectFile, arrived: _Arrivals) -> Dataset | None:
    """The peer's copy; None where it does not send it."""
    query = _query(one)
    for keyword in _MAIN_VALUES:
        del query[keyword]
    for answer, _ in association.send_c_get(query, UID(_GET)):
        if answer.get("Status") not in (0, *_PENDING):
            break
    return arrived.copies.pop(one.sop_instance_uid, None)


def _compare(mine: Dataset, theirs: Dataset) -> Receipt:
    if content_digest(mine) != content_digest(theirs):
        return Receipt(verdict=Verdict.REJECTED, answer="the peer has other content under this UID")
    return Receipt(verdict=Verdict.ACCEPTED, answer="read back by C-GET with the same content")


class _Arrivals:
    """Takes what a C-GET brings."""

    def __init__(self) -> None:
        self.copies: dict[str, Dataset] = {}

    def __call__(self, event: Any) -> int:
        request, syntax = event.request, event.context.transfer_syntax
        if request.DataSet is None:
            return 0xA900
        stream = BytesIO(request.DataSet.getvalue())
        self.copies[str(request.AffectedSOPInstanceUID)] = decode(
            stream, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
        )
        return 0


def _query(one: ObjectFile) -> Dataset:
    study, series = place(one.path)
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study
    query.SeriesInstanceUID = series
    query.SOPInstanceUID = one.sop_instance_uid
    for keyword in _MAIN_VALUES:
        setattr(query, keyword, None)
    return query


def _syntaxes(sop_class: str, objects: Sequence[ObjectFile]) -> list[str]:
    """In which a copy may come: as it was sent, or uncompressed."""
    own = [
        str(read_file_meta_info(one.path).TransferSyntaxUID)
        for one in objects
        if one.sop_class_uid == sop_class and one.path.is_file()
    ]
    return list(dict.fromkeys([*own, ExplicitVRLittleEndian, ImplicitVRLittleEndian]))


def _later(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
