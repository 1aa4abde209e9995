"""Associations to one DICOM peer that end by themselves, whatever the peer does."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from gateway.deliver.settings import DicomDestination
from gateway.domain.job import Receipt, Verdict
from gateway.tls import client_context

# Files are sent as they are; pynetdicom otherwise decodes and encodes each dataset. Concerns only what we send.
_config.STORE_SEND_CHUNKED_DATASET = True

MAX_CONTEXTS = 128  # of one association, PS3.8 9.3.2.2
_PRESENTATION_PROVIDER = 3  # source of a rejection, PS3.8 table 9-21: congestion, local limit


class NoAssociation(Exception):
    """There is no association; ``receipt`` says why, and whether another try makes sense."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__(receipt.answer)
        self.receipt = receipt


class Dialer:
    """Opens associations to a destination."""

    def __init__(self, destination: DicomDestination, ae_title: str) -> None:
        """``ae_title`` is ours where the destination names no other; raises ConfigurationError for bad TLS files."""
        self._to = destination
        self._ae = AE(ae_title=destination.calling_ae_title or ae_title)
        times = destination.timeouts
        self._ae.connection_timeout = times.connect
        self._ae.acse_timeout = times.acse
        self._ae.dimse_timeout = times.dimse
        self._ae.network_timeout = times.network
        context = client_context(destination.tls) if destination.tls else None
        self._tls: tuple[ssl.SSLContext, str] | None = (context, destination.host) if context else None

    @property
    def peer(self) -> str:
        """Who is called, for messages."""
        return f"{self._to.ae_title} at {self._to.host}:{self._to.port}"

    @contextmanager
    def association(
        self, contexts: Sequence[PresentationContext], *, roles: Sequence[Any] = (), handlers: Sequence[Any] = ()
    ) -> Iterator[Association]:
        """An established association, released at the end; raises NoAssociation.

        No context accepted counts as established here: the association is over, and each object finds out by itself.
        ``roles`` are role selection items (PS3.7 D.3.3.4), ``handlers`` answer what the peer asks on it.
        """
        connected: list[bool] = []

        def guard(event: Any) -> None:
            connected.append(True)
            _limit_waiting(event.assoc.dul.socket.socket, self._to.timeouts.network)
            _let_go_of_the_caller(event.assoc)
            _leave_answers_to_the_caller(event.assoc)

        started = time.monotonic()
        try:
            association = self._ae.associate(
                self._to.host,
                self._to.port,
                contexts=list(contexts),
                ae_title=self._to.ae_title,
                tls_args=self._tls,
                ext_neg=list(roles),
                evt_handlers=[(evt.EVT_CONN_OPEN, guard), *handlers],
            )
        except OSError as error:  # the host name is not known
            raise NoAssociation(_retry(f"cannot find {self.peer}: {error.strerror or 'unknown host'}")) from error
        if not association.is_established and not association.rejected_contexts:
            raise NoAssociation(self._why_not(association, bool(connected), time.monotonic() - started))
        try:
            yield association
        finally:
            association.release()

    def _why_not(self, association: Association, connected: bool, seconds: float) -> Receipt:
        if answer := rejection_of(association):
            text = f"association rejected: {answer.result_str}, {answer.source_str}, {answer.reason_str}"
            transient = answer.result == 2 or answer.result_source == _PRESENTATION_PROVIDER
            return _retry(text) if transient else Receipt(verdict=Verdict.REJECTED, answer=text)
        if not connected:
            return _retry(f"cannot connect to {self.peer}{' with TLS' if self._tls else ''}")
        if seconds >= self._to.timeouts.acse:
            return _retry(f"no answer to the association request within {self._to.timeouts.acse:g} s")
        return _retry("association aborted by the peer")


def rejection_of(association: Association) -> A_ASSOCIATE | None:
    """The peer's A-ASSOCIATE-RJ, if it sent one.

    pynetdicom overlooks one that comes, and ends the connection, before the thread that called has woken up: it then says
    "aborted", and what the peer said stays in the queue.
    """
    waiting: Any = association.dul.peek_next_pdu()
    said = association.acceptor.primitive if association.is_rejected else waiting
    return said if isinstance(said, A_ASSOCIATE) and said.result in (1, 2) else None


def _limit_waiting(connection: socket.socket, seconds: float) -> None:
    """Makes a peer that stops reading, or stops within a PDU, an error: pynetdicom waits for both without an end."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _let_go_of_the_caller(association: Association) -> None:
    """Ends the waiting of our thread where pynetdicom's own has ended.

    Each of its calls first waits until that thread pauses. One that has died, by a fault of its own or at the wrong moment,
    never pauses, and a destination would stand still for ever.
    """
    reactor = association._run_reactor

    def run() -> None:
        try:
            reactor()
        finally:
            association._is_paused = True

    association._run_reactor = run  # type: ignore[method-assign]


def _leave_answers_to_the_caller(association: Association) -> None:
    """Keeps pynetdicom's own thread from taking the answer that ours waits for.

    It looks for requests of the peer while ours has nothing to ask. Halted between its way past that gate and saying that it is
    past, it counts as waiting there, goes on, finds our answer, drops it as no request, and we wait out the whole time limit.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        ours = not association._reactor_checkpoint.is_set()  # closed before we ask, and open again after the answer
        return (None, None) if ours and not block else take(block)

    association.dimse.get_msg = get_msg  # type: ignore[method-assign]


def _retry(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
