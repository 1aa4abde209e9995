"""Results to a PACS by C-STORE (PS3.4 annex B)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.deliver import status
from gateway.deliver.dimse import MAX_CONTEXTS, Dialer, NoAssociation
from gateway.deliver.orthanc_reader import OrthancReader
from gateway.deliver.readback import read_back
from gateway.deliver.settings import DicomDestination
from gateway.domain.errors import DestinationUnreachable
from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile

_ASSOCIATIONS = 3
"""In one call, as long as the peer ends them: an object that makes it abort must not stand in the way of the others."""

_SLOWEST = 64 * 1024
"""Bytes a second that a working link moves at least; the time for an answer begins before the object is on the wire."""


class _Line(Enum):
    """What has become of the association after an object."""

    OPEN = "open"
    OVER = "over"
    SILENT = "silent"  # calling again at once would only wait again


@dataclass(frozen=True)
class _Item:
    uid: str
    sop_class: UID
    syntax: UID
    object: ObjectFile


class CStorePacs:
    """A `Pacs` that speaks DIMSE.

    All objects go over one association with one presentation context for each pair of SOP class and transfer syntax,
    byte by byte as in the file. Only where the peer takes an uncompressed object in Implicit VR alone, the dataset is
    encoded anew; no value changes.
    """

    def __init__(
        self, destination: DicomDestination, ae_title: str, *, on_answer: Callable[[], None] = lambda: None
    ) -> None:
        """``ae_title`` is ours where the destination names no other; ``on_answer`` is called after each object.

        Raises ConfigurationError for bad TLS files.
        """
        self._destination, self._on_answer = destination, on_answer
        self._dialer = Dialer(destination, ae_title)
        self._implicit = destination.transfer_syntax == "implicit"
        self._read_back = self._reader()

    def store(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """Sends objects; one receipt for each SOP Instance UID. Raises nothing.

        Where the peer ends the association midway, the rest goes over a new one, up to three. An answer 0x0111
        (duplicate SOP instance) is accepted only where what the peer has under the UID compares equal.
        """
        receipts: dict[str, Receipt] = {}
        pending = [item for item in (_examine(one, receipts) for one in objects) if item]
        for _ in range(_ASSOCIATIONS):
            if pending:
                pending = self._over_one_association(pending, receipts)
        for item in pending:
            receipts[item.uid] = _retry("the peer ended the association before this object")
        self._compare_duplicates(objects, receipts)
        return receipts

    def read_back(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """What the peer has under each SOP Instance UID, by C-GET or C-FIND. Raises nothing."""
        return self._read_back(objects)

    def echo(self) -> str:
        """Sends a C-ECHO; raises DestinationUnreachable."""
        started = time.monotonic()
        try:
            with self._dialer.association([build_context(Verification)]) as association:
                answer = association.send_c_echo() if association.is_established else None
        except NoAssociation as error:
            raise DestinationUnreachable(error.receipt.answer) from error
        code = getattr(answer, "Status", None)
        if code != 0:
            said = "no presentation context" if answer is None else "no answer" if code is None else f"0x{code:04X}"
            raise DestinationUnreachable(f"C-ECHO to {self._dialer.peer}: {said}")
        return f"C-ECHO answered by {self._dialer.peer} in {(time.monotonic() - started) * 1000:.0f} ms"

    def _reader(self) -> Callable[[Sequence[ObjectFile]], Mapping[str, Receipt]]:
        if self._destination.orthanc is not None:
            return OrthancReader(self._destination.orthanc).read_back
        return partial(read_back, self._dialer)

    def _over_one_association(self, items: list[_Item], receipts: dict[str, Receipt]) -> list[_Item]:
        """Sends until the association ends; returns what has not been tried and can be at once."""
        batch = _batch(items)
        try:
            with self._dialer.association(_contexts(batch, self._implicit)) as association:
                for position, item in enumerate(batch):
                    if not association.is_established and association.accepted_contexts:
                        return items[position:]
                    receipts[item.uid], line = self._send(association, item)
                    self._on_answer()
                    if line is _Line.SILENT:
                        receipts.update((rest.uid, receipts[item.uid]) for rest in items[position:])
                        return []
                    if line is _Line.OVER:
                        return items[position + 1 :]
        except NoAssociation as error:
            receipts.update((item.uid, error.receipt) for item in items)
            return []
        return items[len(batch) :]

    def _send(self, association: Association, item: _Item) -> tuple[Receipt, _Line]:
        accepted = {
            context.transfer_syntax[0]
            for context in association.accepted_contexts
            if context.abstract_syntax == item.sop_class
        }
        if item.syntax not in accepted and not (accepted and _convertible(item.syntax)):
            return _no_context(item), _Line.OPEN
        started = time.monotonic()
        try:
            limit = self._destination.timeouts.dimse + item.object.path.stat().st_size / _SLOWEST
            association.dimse_timeout = limit
            answer = association.send_c_store(
                item.object.path if item.syntax in accepted else dcmread(item.object.path)
            )
        except RuntimeError:  # ended between our look and the call
            return _retry("the peer ended the association"), _Line.OVER
        except (OSError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            association.abort()  # half of it may have been sent
            return _retry(f"cannot read the file: {type(error).__name__}"), _Line.OVER
        if "Status" in answer:
            return status.receipt(answer.Status, str(answer.get("ErrorComment") or "")), _Line.OPEN
        if time.monotonic() - started >= self._destination.timeouts.dimse:
            return _retry(f"no answer within {limit:.0f} s"), _Line.SILENT
        return _retry("the peer ended the association instead of answering"), _Line.OVER

    def _compare_duplicates(self, objects: Iterable[ObjectFile], receipts: dict[str, Receipt]) -> None:
        asked = [one for one in objects if status.is_duplicate(receipts[one.sop_instance_uid])]
        for uid, finding in self._read_back(asked).items() if asked else ():
            receipts[uid] = status.judge_duplicate(receipts[uid], finding)


def _examine(one: ObjectFile, receipts: dict[str, Receipt]) -> _Item | None:
    """What the file says of itself; a file that is not the object it should be gets its receipt here."""
    uid = one.sop_instance_uid
    try:
        meta = read_file_meta_info(one.path)
    except OSError as error:
        receipts[uid] = _retry(f"cannot read the file: {error.strerror}")
        return None
    except InvalidDicomError:
        receipts[uid] = Receipt(verdict=Verdict.REJECTED, answer="the file is not DICOM")
        return None
    named = (meta.get("MediaStorageSOPInstanceUID"), meta.get("MediaStorageSOPClassUID"))
    if named != (uid, one.sop_class_uid) or "TransferSyntaxUID" not in meta:
        receipts[uid] = Receipt(verdict=Verdict.REJECTED, answer="the file holds another instance")
        return None
    return _Item(uid, meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID, one)


def _batch(items: list[_Item]) -> list[_Item]:
    """As many of the first items as one association has contexts for, two for each pair."""
    pairs: set[tuple[UID, UID]] = set()
    for position, item in enumerate(items):
        pairs.add((item.sop_class, item.syntax))
        if len(pairs) > MAX_CONTEXTS // 2:
            return items[:position]
    return items


def _contexts(items: Sequence[_Item], implicit: bool) -> list[PresentationContext]:
    pairs = dict.fromkeys(
        (item.sop_class, item.syntax) for item in items if not (implicit and _convertible(item.syntax))
    )
    # The default transfer syntax is one that every peer must take (PS3.5 10.1).
    fallbacks = dict.fromkeys((item.sop_class, ImplicitVRLittleEndian) for item in items if _convertible(item.syntax))
    return [build_context(*pair) for pair in (pairs | fallbacks)]


def _convertible(syntax: UID) -> bool:
    return syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def _no_context(item: _Item) -> Receipt:
    text = f"no presentation context for {item.sop_class.name} in {item.syntax.name}"
    return Receipt(verdict=Verdict.UNSUPPORTED, answer=text)


def _retry(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
