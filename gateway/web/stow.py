"""STOW-RS (PS3.18 10.5): every instance of a request through the same receiver as C-STORE, durable before it is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Protocol, Self

from gateway.domain.errors import HilumError, NotDicom, UpperLayerError
from gateway.domain.ids import AETitle, StudyUID
from gateway.domain.study import Header
from gateway.receive.elements import CutOff
from gateway.receive.header import read_header
from gateway.receive.receiver import SUCCESS, Reception, Sender, StoreRequest
from gateway.web.accept import MediaRange, parse_media_type
from gateway.web.multipart import Event, Malformed, MultipartReader, PartBegins, PartData, PartEnds, TooManyParts
from gateway.web.part10 import FileMeta, read_file_meta
from gateway.web.problem import Refused
from gateway.web.settings import HttpSettings
from gateway.web.stow_answer import CANNOT_UNDERSTAND, NOT_AS_SAID, Place, Tally

DICOM, DICOM_JSON = "application/dicom", "application/dicom+json"
_HEAD = 64 * 1024  # bytes of a file in which it has said what it is, nearly always
_LARGEST_HEAD = 16 * 1024 * 1024  # bytes that are looked at where it has not


class Receives(Protocol):
    """What is needed of `gateway.receive.receiver.Receiver`."""

    def opened(self, calling_ae: AETitle, address: str) -> Sender:
        """A request began."""
        ...

    def closed(self, sender: Sender, how: str) -> None:
        """A request ended."""
        ...

    def begin(self, request: StoreRequest, sender: Sender) -> Reception:
        """One instance is about to come."""
        ...


@dataclass
class Upload:
    """One request: an association's evidence, and the tally of its instances."""

    receiver: Receives
    settings: HttpSettings
    calling_ae: AETitle
    address: str
    study: StudyUID | None = None  # every instance must be of it
    tally: Tally = field(default_factory=Tally)

    def __enter__(self) -> Self:
        self._sender = self.receiver.opened(self.calling_ae, self.address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Only a request that was good from end to end is evidence that the sender has said what it wanted to say.
        good = kind is None and self.tally.status() is HTTPStatus.OK
        self.receiver.closed(self._sender, "released" if good else "aborted")

    def store_files(self, events: Iterable[Event]) -> None:
        """Stores the Part 10 files of a message as they come in, none of them in memory as a whole."""
        part: Incoming | None = None
        try:
            for event in events:
                if isinstance(event, PartBegins):
                    part = Incoming(self, part_kind(event.headers) in (DICOM, ""))
                elif part is not None and isinstance(event, PartData):
                    part.write(event.data)
                elif part is not None:
                    part.end()
        finally:
            if part is not None:
                part.close()

    def begin(self, request: StoreRequest) -> Reception:
        """One instance is about to come."""
        return self.receiver.begin(request, self._sender)

    def refuse(self, place: Place | None, reason: int) -> None:
        """Notes an instance that is not stored, with its Failure Reason."""
        if place is not None and place.sop_instance_uid:
            self.tally.failed.append((place, reason))
        else:
            self.tally.unnamed.append(reason)

    def settle(self, reception: Reception, place: Place) -> None:
        """The instance is whole: stores it, unless it is of another study than the request."""
        if self.study is not None and place.study_uid != self.study:
            self.refuse(place, NOT_AS_SAID)
            return
        answer = reception.finish()
        if answer.status == SUCCESS:
            self.tally.stored.append(place)
        else:
            self.refuse(place, answer.status)


class Incoming:
    """One Part 10 file on its way in. Its beginning is kept until it has said what it is."""

    def __init__(self, upload: Upload, wanted: bool) -> None:
        self._upload = upload
        self._error: int | None = None if wanted else CANNOT_UNDERSTAND
        self._head = bytearray()
        self._meta: FileMeta | None = None
        self._named: Place | None = None
        self._place: Place | None = None
        self._reception: Reception | None = None

    def write(self, data: bytes) -> None:
        """The next bytes of the file; raises Refused where it is longer than any that is taken."""
        if self._error is not None:
            return
        if self._reception is None:
            self._head += data
            if len(self._head) >= _HEAD:
                self._begin()
            return
        if self._place is None and len(self._head) < _LARGEST_HEAD:
            self._head += data
        self._pass_on(memoryview(data))

    def end(self) -> None:
        """The file is whole."""
        if self._error is None and self._reception is None:
            self._begin()
        if self._error is None and self._place is None:
            self._look(whole=True)
        if self._error is not None or self._place is None or self._reception is None:
            self._upload.refuse(self._named, self._error or CANNOT_UNDERSTAND)
        else:
            self._upload.settle(self._reception, self._place)
        self.close()

    def close(self) -> None:
        """Lets go of it; what was not settled is gone."""
        if self._reception is not None:
            self._reception.__exit__(None, None, None)
            self._reception = None

    def _begin(self) -> None:
        try:
            self._meta = meta = read_file_meta(memoryview(self._head))
        except NotDicom as error:
            self._error = error.dimse_status
            return
        self._named = Place(sop_class_uid=meta.sop_class_uid, sop_instance_uid=meta.sop_instance_uid)
        self._reception = self._upload.begin(
            StoreRequest(
                sop_class_uid=meta.sop_class_uid,
                sop_instance_uid=meta.sop_instance_uid,
                transfer_syntax_uid=meta.transfer_syntax_uid,
            )
        )
        self._pass_on(memoryview(bytes(self._head[meta.length :])))
        self._look(whole=False)

    def _pass_on(self, data: memoryview) -> None:
        assert self._reception is not None  # noqa: S101
        try:
            self._reception.write([data])
        except UpperLayerError as error:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error.message) from None

    def _look(self, *, whole: bool) -> None:
        """Reads from the beginning what the file is."""
        assert self._meta is not None  # noqa: S101
        syntax = self._meta.transfer_syntax_uid
        try:
            self._place = place_of(read_header(memoryview(bytes(self._head[self._meta.length :])), syntax, whole=whole))
        except CutOff as error:
            self._error = error.dimse_status if whole else None
        except HilumError as error:
            self._error = error.dimse_status


def place_of(header: Header) -> Place:
    """Where an instance belongs."""
    return Place(
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
    )


def read_events(pieces: Iterable[bytes], kind: MediaRange, max_parts: int) -> Iterator[Event]:
    """What the body holds; a body that is one file is one part. Raises Malformed and TooManyParts."""
    if kind.kind == DICOM:
        yield PartBegins({"content-type": DICOM})
        for piece in pieces:
            yield PartData(piece)
        yield PartEnds()
        return
    reader = MultipartReader(kind.parameters.get("boundary", ""), max_parts)
    for piece in pieces:
        yield from reader.feed(piece)
    reader.close()


def store_all(
    upload: Upload,
    pieces: Iterable[bytes],
    kind: MediaRange,
    store_metadata: Callable[[Upload, Iterable[Event]], None],
) -> Tally:
    """Stores what a request brings; raises Refused where the request itself is wrong.

    `store_metadata` stores what comes as DICOM JSON with bulk data.
    """
    most = upload.settings.max_parts
    try:
        with upload:
            events = read_events(pieces, kind, most)
            store_metadata(upload, events) if kind.part == DICOM_JSON else upload.store_files(events)
            if not upload.tally.total:
                raise Malformed("the request holds no instance")
    except Malformed as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{error}; {_kept(upload)}") from None
    except TooManyParts:
        detail = f"the request has more than {most} parts (http.max_parts); {_kept(upload)}"
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail) from None
    return upload.tally


def check_content_type(text: str) -> MediaRange:
    """The Content-Type of a STOW-RS request; raises Refused (415) for one that is not taken."""
    try:
        kind = parse_media_type(text)
    except ValueError:
        kind = MediaRange(kind="")
    if kind.kind == DICOM or (kind.kind == "multipart/related" and kind.part in (DICOM, DICOM_JSON)):
        return kind
    wanted = f'multipart/related; type="{DICOM}", multipart/related; type="{DICOM_JSON}", {DICOM}'
    raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type must be one of {wanted}", {"Accept": wanted})


def part_kind(headers: Mapping[str, str]) -> str:
    """Media type of a part; empty where it says none, or nonsense."""
    try:
        return parse_media_type(headers.get("content-type", "")).kind
    except ValueError:
        return ""


def _kept(upload: Upload) -> str:
    return f"{len(upload.tally.stored)} instances before were stored"
