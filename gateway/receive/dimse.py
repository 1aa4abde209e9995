"""The DICOM node: Verification and Storage SCP, and whatever other services it is given (PS3.4 annexes A and B).

One connection is one thread, from its TLS handshake to its end. Everything it hears goes to a `Receiver` or a `DimseService`.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.domain.errors import HilumError, ServiceUnavailable, UpperLayerError
from gateway.domain.ids import AETitle
from gateway.observe.logs import log
from gateway.receive import pdu
from gateway.receive.admission import NOT_NOW, TOO_MANY, Rejection, admit
from gateway.receive.association import Association
from gateway.receive.connections import Connection, Connections
from gateway.receive.negotiation import Agreement, AssociateRequest, agree, decode
from gateway.receive.pdu import Wire
from gateway.receive.receiver import Receiver, Sender
from gateway.receive.secure import certificate_of, handshake
from gateway.receive.service import DimseService, Verification
from gateway.receive.settings import DicomSettings
from gateway.tls import server_context

_ARTIM = 10.0  # seconds a connection may stay without asking for an association (PS3.8 9.1.5)
_BACKLOG = 128
_BREATH = 0.1  # seconds between two tries to accept when the machine has no room
_PARTING = 5.0  # seconds that connections have to end when the node stops


class DimseNode:
    """Listens for associations until stopped."""

    def __init__(self, receiver: Receiver, settings: DicomSettings, services: Sequence[DimseService] = ()) -> None:
        self._receiver, self._settings = receiver, settings
        self._services: Mapping[str, DimseService] = {
            str(uid): service for service in (Verification(), *services) for uid in service.sop_classes
        }
        self._connections = Connections(settings)
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()
        self._log = log(stage="receive")

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._listener is None:
            raise ServiceUnavailable("the DICOM node is not listening")
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Begins to listen; raises ServiceUnavailable when the address cannot be used, ConfigurationError for bad TLS files."""
        settings = self._settings
        tls = server_context(settings.tls, "dicom.tls") if settings.tls else None
        try:
            listener = _listen(settings.host, settings.port)
        except OSError as error:
            message = f"cannot listen for DICOM on {settings.host}:{settings.port}: {error.strerror}"
            fix = "stop the other program or set dicom.port" if error.errno == errno.EADDRINUSE else "set dicom.host"
            raise ServiceUnavailable(f"{message}; {fix}") from error
        self._listener = listener
        self._stopping.clear()
        threading.Thread(target=self._accept, args=(listener, tls), name="dicom node", daemon=True).start()
        self._log.info("listening", ae_title=settings.ae_title, host=settings.host, port=self.port)

    def stop(self) -> None:
        """Stops listening and ends every association; what was acknowledged is kept, what was on its way is not."""
        if self._listener is None:
            return
        self._stopping.set()
        listener, self._listener = self._listener, None
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        listener.close()
        everyone = self._connections.everyone()
        for connection in everyone:
            connection.cut()
        for connection in everyone:
            if connection.thread is not None:
                connection.thread.join(_PARTING)

    def _accept(self, listener: socket.socket, tls: Any) -> None:
        while not self._stopping.is_set():
            try:
                accepted, address = listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED):
                    return  # closed by `stop`
                self._log.error("cannot accept", error=error.strerror)
                self._connections.make_room()
                self._stopping.wait(_BREATH)
                continue
            self._begin(accepted, str(address[0]), tls)

    def _begin(self, accepted: socket.socket, address: str, tls: Any) -> None:
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                accepted = tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            connection = Connection(accepted, address)
            connection.thread = threading.Thread(
                target=self._serve, args=(connection,), name=f"association {address}", daemon=True
            )
            self._connections.add(connection)
            connection.thread.start()
        except (OSError, RuntimeError) as error:  # the peer has gone, or the machine starts no more threads
            self._log.warning("connection failed", address=address, error=type(error).__name__)
            if isinstance(error, RuntimeError):
                self._connections.remove(connection)
            accepted.close()

    def _serve(self, connection: Connection) -> None:
        try:
            with connection.socket:
                self._converse(connection)
        except HilumError as error:
            self._log.warning("connection ended", address=connection.address, reason=error.message)
        # The edge of the connection: a defect ends one association, is seen, and holds up nobody else.
        except Exception as error:  # noqa: BLE001
            self._log.error("connection failed", address=connection.address, error=type(error).__name__)
        finally:
            self._connections.remove(connection)

    def _converse(self, connection: Connection) -> None:
        settings = self._settings
        idle, patience = settings.idle_timeout, min(_ARTIM, settings.idle_timeout)
        if settings.tls is not None:
            handshake(connection.socket, patience)
        whole = min(settings.pdu_timeout, idle)
        wire = Wire(
            connection.socket, largest=settings.max_pdu, idle=idle, whole=whole, slowest=float(settings.min_rate)
        )
        try:
            request = decode(wire.associate_request(patience))
            opened = self._open(request, connection)
            if not isinstance(opened, Rejection):
                self._speak(wire, *opened)
                self._connections.remove(connection)
                wire.farewell()
                return
        except UpperLayerError as error:
            wire.farewell(pdu.abort(error.reason))
            raise
        self._log.warning("association rejected", address=connection.address, reason=opened.reason)
        wire.farewell(pdu.rejection(opened.result, opened.source, opened.diagnostic))

    def _open(self, request: AssociateRequest, connection: Connection) -> tuple[Agreement, Sender] | Rejection:
        try:
            shown = certificate_of(connection.socket)
            rejection = admit(request, connection.address, shown, self._settings)
            if rejection is not None:
                return rejection
            if not self._connections.associate(connection):
                return TOO_MANY
            agreement = agree(request, self._services, self._settings.max_pdu)
            return agreement, self._receiver.opened(AETitle(request.calling), connection.address)
        except UpperLayerError:
            raise
        # Whatever goes wrong here, nobody gets in by it, and the peer may try again.
        except Exception as error:  # noqa: BLE001
            self._log.error("association cannot be judged", error=type(error).__name__)
            return NOT_NOW

    def _speak(self, wire: Wire, agreement: Agreement, sender: Sender) -> None:
        how = "lost"
        try:
            self._log.info("association", association=sender.association, calling_ae=sender.calling_ae)
            wire.send(agreement.answer)
            how = Association(wire, agreement, self._receiver, self._services, sender).serve()
        except UpperLayerError:
            how = "aborted"
            raise
        finally:
            self._receiver.closed(sender, how)


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
