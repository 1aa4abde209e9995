"""DICOM peers that do as they are told, in this process and on a free port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.sop_class import (
    ComprehensiveSRStorage,
    MRImageStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

CLASSES = (SegmentationStorage, ComprehensiveSRStorage, MRImageStorage)
StorageCommitmentPushModelInstance = "1.2.840.10008.1.20.1.1"
Answer = Callable[[Any], int]


@dataclass
class Commits:
    """How a peer answers storage commitment requests, in order; the last way is repeated.

    ``all``, ``half`` (every second instance fails), ``none``: on another association to ``port``; ``same``: on the one that
    asked; ``twice``; ``later``: when the peer's ``report`` is set; ``silent``: never; a number: the request is refused with
    this status.
    """

    ways: list[str | int]
    port: int = 0  # of whom to tell
    titles: tuple[str, str] = ("PEER", "HILUM")


@dataclass
class Peer:
    """What a scripted peer has seen."""

    port: int = 0
    stored: dict[str, bytes] = field(default_factory=dict)  # SOP Instance UID -> dataset bytes of the last send
    requests: list[str] = field(default_factory=list)  # SOP Instance UID of each C-STORE
    associations: int = 0
    rejected: list[str] = field(default_factory=list)
    transactions: list[str] = field(default_factory=list)  # Transaction UIDs that were asked for
    statuses: list[int] = field(default_factory=list)  # of the answers to its storage commitment reports
    report: threading.Event = field(default_factory=threading.Event)  # that it may say what it says `later`


@contextmanager
def storage_peer(
    answers: Sequence[int | str] | None = None,
    *,
    classes: Sequence[str] = CLASSES,
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    find: bool = False,
    finds: Callable[[str], bool] | None = None,
    titles: Sequence[str] = (),
    tls: Any = None,
    commits: Commits | None = None,
    port: int = 0,
    peer: Peer | None = None,
) -> Iterator[Peer]:
    """A storage SCP. ``answers`` are statuses in order, the last one repeated; ``"abort"`` ends the association,
    ``"silent"`` never answers.

    With ``find`` it also answers C-FIND from what it has stored, or as ``finds`` says. ``titles`` are the calling AE
    titles it takes; all where there are none. ``peer`` is one that has been there before, at ``port``.
    """
    peer, script, lock, ended = peer or Peer(), list(answers or [0]), threading.Lock(), threading.Event()

    def on_store(event: Any) -> int:
        with lock:
            uid = str(event.request.AffectedSOPInstanceUID)
            answer = script.pop(0) if len(script) > 1 else script[0]
            peer.requests.append(uid)
        if answer == "silent":
            ended.wait(30)
            return 0xA700
        with lock:
            if isinstance(answer, str):
                event.assoc.abort()
                return 0
            if answer == 0 or answer >> 12 == 0xB:
                peer.stored[uid] = event.request.DataSet.getvalue()
            return answer

    def on_find(event: Any) -> Iterator[tuple[int, Any]]:
        uid = event.identifier.SOPInstanceUID
        if finds(uid) if finds else uid in peer.stored:
            yield 0xFF00, event.identifier
        yield 0x0000, None

    def on_action(event: Any) -> tuple[int, None]:
        assert commits is not None
        with lock:
            way = commits.ways.pop(0) if len(commits.ways) > 1 else commits.ways[0]
            peer.transactions.append(str(event.action_information.TransactionUID))
        if isinstance(way, int):
            return way, None
        if way != "silent":
            arguments = (event.assoc, event.action_information, way, commits, peer)
            threading.Thread(target=report_commitment, args=arguments, daemon=True).start()
        return 0, None

    def on_accepted(_event: Any) -> None:
        peer.associations += 1

    ae = AE("PEER")
    ae.require_calling_aet = list(titles)
    for name in classes:
        ae.add_supported_context(name, list(syntaxes))
    ae.add_supported_context(Verification)
    if find:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    if commits:
        ae.add_supported_context(StorageCommitmentPushModel)
    handlers = [
        (evt.EVT_C_STORE, on_store), (evt.EVT_C_FIND, on_find), (evt.EVT_ACCEPTED, on_accepted),
        (evt.EVT_N_ACTION, on_action),
    ]  # fmt: skip
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
    assert server is not None
    peer.port = server.server_address[1]
    try:
        # The gateway's own node, where it is loaded in this process too, has every storage class taken.
        with patch.object(_config, "UNRESTRICTED_STORAGE_SERVICE", False):
            yield peer
    finally:
        ended.set()
        # It looks every half second whether it should end; nobody has to wait for that, but who wants its port again.
        ending = threading.Thread(target=server.shutdown, daemon=True)
        ending.start()
        if port:
            ending.join()


def report_commitment(association: Any, request: Dataset, way: str, commits: Commits, peer: Peer) -> None:
    """Sends the report of a peer about what it was asked to commit itself to."""
    if way == "later":
        peer.report.wait(120)
    failing = {"half": 2, "none": 1}.get(way, 0)
    event = Dataset()
    event.TransactionUID = request.TransactionUID
    event.ReferencedSOPSequence, event.FailedSOPSequence = [], []
    for position, item in enumerate(request.ReferencedSOPSequence):
        if failing and position % failing == 0:
            peer.stored.pop(item.ReferencedSOPInstanceUID, None)
            item.FailureReason = 0x0112
            event.FailedSOPSequence.append(item)
        else:
            event.ReferencedSOPSequence.append(item)
    if way == "same":
        peer.statuses.append(_send_report(association, event))
        return
    entity = AE(commits.titles[0])
    entity.add_requested_context(StorageCommitmentPushModel)
    for _ in range(2 if way == "twice" else 1):
        other = entity.associate(
            "127.0.0.1",
            commits.port,
            ae_title=commits.titles[1],
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        peer.statuses.append(_send_report(other, event) if other.is_established else -1)
        other.release()


def _send_report(association: Any, event: Dataset) -> int:
    kind = 2 if event.get("FailedSOPSequence") else 1
    if kind == 1:
        event.pop("FailedSOPSequence", None)
    status, _ = association.send_n_event_report(
        event, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return int(status.get("Status", -1))


@contextmanager
def blackhole() -> Iterator[int]:
    """A port that accepts TCP connections and then is silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def stalling_proxy(target: int, after: int) -> Iterator[int]:
    """A way to a peer on which, after some bytes, nothing moves any more though the connections stay open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends: list[socket.socket] = []

        def serve() -> None:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", target))
            ends.extend((near, far))
            threading.Thread(target=_pass_on, args=(far, near, 1 << 40), daemon=True).start()
            _pass_on(near, far, after)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # close alone does not wake a thread that reads
            end.close()


def _pass_on(source: socket.socket, sink: socket.socket, limit: int) -> None:
    with suppress(OSError):
        while limit > 0 and (data := source.recv(min(limit, 65536))):
            sink.sendall(data)
            limit -= len(data)
