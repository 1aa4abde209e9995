"""DICOM peers that do as they are told, in this process and on a free port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import (
    ComprehensiveSRStorage,
    MRImageStorage,
    SegmentationStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

CLASSES = (SegmentationStorage, ComprehensiveSRStorage, MRImageStorage)
Answer = Callable[[Any], int]


@dataclass
class Peer:
    """What a scripted peer has seen."""

    port: int = 0
    stored: dict[str, bytes] = field(default_factory=dict)  # SOP Instance UID -> dataset bytes of the last send
    requests: list[str] = field(default_factory=list)  # SOP Instance UID of each C-STORE
    associations: int = 0
    rejected: list[str] = field(default_factory=list)


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
) -> Iterator[Peer]:
    """A storage SCP. ``answers`` are statuses in order, the last one repeated; ``"abort"`` ends the association,
    ``"silent"`` never answers.

    With ``find`` it also answers C-FIND from what it has stored, or as ``finds`` says. ``titles`` are the calling AE
    titles it takes; all where there are none.
    """
    peer, script, lock, ended = Peer(), list(answers or [0]), threading.Lock(), threading.Event()

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

    def on_accepted(_event: Any) -> None:
        peer.associations += 1

    ae = AE("PEER")
    ae.require_calling_aet = list(titles)
    for name in classes:
        ae.add_supported_context(name, list(syntaxes))
    ae.add_supported_context(Verification)
    if find:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_STORE, on_store), (evt.EVT_C_FIND, on_find), (evt.EVT_ACCEPTED, on_accepted)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
    assert server is not None
    peer.port = server.server_address[1]
    try:
        # The gateway's own node, where it is loaded in this process too, has every storage class taken.
        with patch.object(_config, "UNRESTRICTED_STORAGE_SERVICE", False):
            yield peer
    finally:
        ended.set()
        # It looks every half second whether it should end; nobody has to wait for that.
        threading.Thread(target=server.shutdown, daemon=True).start()


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
