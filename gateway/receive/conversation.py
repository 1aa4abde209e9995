"""What is said on one connection, from its TLS handshake to its end, in a thread of its own."""

from __future__ import annotations

import socket
import ssl
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.domain.errors import HilumError, UpperLayerError
from gateway.domain.ids import AETitle, AssociationId
from gateway.observe.logs import log
from gateway.receive import pdu
from gateway.receive.admission import NOT_NOW, TOO_MANY, Rejection, admit
from gateway.receive.association import Association
from gateway.receive.connections import Connection
from gateway.receive.negotiation import Agreement, AssociateRequest, agree, decode
from gateway.receive.pdu import Wire
from gateway.receive.receiver import Receiver, Sender
from gateway.receive.secure import certificate_of, handshake
from gateway.receive.service import DimseService, Verification
from gateway.receive.settings import DicomSettings
from gateway.tls import server_context

_ARTIM = 10.0  # seconds a connection may stay without asking for an association (PS3.8 9.1.5)


class AssociationLimits(Protocol):
    """Who counts connections and associations."""

    def associate(self, connection: Connection) -> bool:
        """Whether the connection may have an association."""
        ...

    def remove(self, connection: Connection) -> None:
        """The connection has ended; may be said twice."""
        ...


class Conversations:
    """Serves connections: Verification, Storage, and whatever other services there are (PS3.4 annexes A and B)."""

    def __init__(
        self, receiver: Receiver, settings: DicomSettings, services: Sequence[DimseService], limits: AssociationLimits
    ) -> None:
        self._receiver, self._settings, self._limits = receiver, settings, limits
        self._services: Mapping[str, DimseService] = {
            str(uid): service for service in (Verification(), *services) for uid in service.sop_classes
        }
        self._tls: ssl.SSLContext | None = None
        self._log = log(stage="receive")

    def prepare(self) -> None:
        """Reads the TLS files; raises ConfigurationError."""
        self._tls = server_context(self._settings.tls, "dicom.tls") if self._settings.tls else None

    def begin(self, connection: Connection) -> None:
        """Serves it from now on; raises OSError where it has gone, RuntimeError where the machine starts no more threads."""
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection.socket = self._tls.wrap_socket(
                connection.socket, server_side=True, do_handshake_on_connect=False
            )
        name = f"association {connection.address}"
        connection.thread = threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True)
        connection.thread.start()

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
            self._limits.remove(connection)

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
                self._limits.remove(connection)
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
            connection.association = AssociationId(uuid.uuid4().hex)
            if not self._limits.associate(connection):
                return TOO_MANY
            agreement = agree(request, self._services, self._settings.max_pdu)
            return agreement, self._receiver.opened(
                AETitle(request.calling), connection.address, connection.association
            )
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
