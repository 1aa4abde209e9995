"""The DICOM node on pynetdicom: Verification and Storage SCP (PS3.4 annexes A and B).

Everything it hears goes to a `Receiver`; a faster wire can take this file's place without anybody else noticing.
"""

from __future__ import annotations

import errno
import socket
import ssl
import sys
import threading
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from gateway.domain.errors import ConfigurationError, ServiceUnavailable
from gateway.domain.ids import AETitle
from gateway.observe.logs import log
from gateway.receive.admission import NOT_NOW, Rejection, admit
from gateway.receive.receiver import Answer, Receiver, Sender, StoreRequest
from gateway.receive.settings import DicomSettings

# Peers' text must not reach our logs.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

# Every storage class is taken, also those newer than the dictionary here (Label Map Segmentation, say) and private
# ones, each in the transfer syntax that the sender likes best: what is stored is what was sent.
_config.UNRESTRICTED_STORAGE_SERVICE = True

_SENDER = "_hilum_sender"  # where an association keeps who is on the other side
_ARTIM = 10.0  # seconds a connection may stay without asking for an association (PS3.8 9.1.5)
_HANDSHAKE = 10.0  # seconds a TLS handshake may take


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, with the TLS handshake where a silent client holds up nobody but itself."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, tls: ssl.SSLContext | None, **named: Any) -> None:
        self._tls, self._log = tls, log(stage="receive")
        super().__init__(*arguments, **named)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Runs in the connection's own thread."""
        if self._tls is not None:
            request.settimeout(_HANDSHAKE)
            request = self._tls.wrap_socket(request, server_side=True)
            request.settimeout(None)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that never became an association, for a log that others can read."""
        self._log.warning("connection failed", address=client_address[0], error=type(sys.exc_info()[1]).__name__)


class DimseNode:
    """Listens for associations until stopped."""

    def __init__(self, receiver: Receiver, settings: DicomSettings) -> None:
        self._receiver, self._settings = receiver, settings
        self._server: _Server | None = None
        self._log = log(stage="receive")

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise ServiceUnavailable("the DICOM node is not listening")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begins to listen; raises ServiceUnavailable when the address cannot be used."""
        settings, tls = self._settings, _tls(self._settings)
        try:
            address = _resolve(settings.host, settings.port)
            server: Any = self._entity().make_server(
                address, evt_handlers=self._handlers(), server_class=_Server, tls=tls
            )
        except OSError as error:
            message = f"cannot listen for DICOM on {settings.host}:{settings.port}: {error.strerror}"
            fix = "stop the other program or set dicom.port" if error.errno == errno.EADDRINUSE else "set dicom.host"
            raise ServiceUnavailable(f"{message}; {fix}") from error
        server.ae._servers.append(server)
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom node", daemon=True).start()
        self._log.info("listening", ae_title=settings.ae_title, host=settings.host, port=self.port)

    def stop(self) -> None:
        """Stops listening and ends every association."""
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                if association.is_established:  # one that has not asked yet ends by its timer
                    association.abort()
            self._server = None

    def _entity(self) -> AE:
        entity = AE(ae_title=self._settings.ae_title)
        entity.maximum_associations = self._settings.max_associations
        entity.maximum_pdu_size = self._settings.max_pdu
        entity.network_timeout = self._settings.idle_timeout
        entity.dimse_timeout = self._settings.idle_timeout
        entity.acse_timeout = min(self._settings.idle_timeout, _ARTIM)
        entity.require_called_aet = False  # `admit` decides, in one place
        entity.add_supported_context(Verification)
        return entity

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_C_ECHO, lambda _event: 0x0000),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_RELEASED, lambda event: self._on_closed(event, "released")),
            (evt.EVT_ABORTED, lambda event: self._on_closed(event, "aborted")),
            (evt.EVT_CONN_CLOSE, lambda event: self._on_closed(event, "lost")),
        ]

    def _on_requested(self, event: evt.Event) -> None:
        try:
            rejection = self._judge(event)
        # pynetdicom goes on to accept when a handler fails: whatever went wrong here, nobody gets in by it.
        except Exception as error:  # noqa: BLE001
            self._log.error("association cannot be judged", error=type(error).__name__)
            rejection = NOT_NOW
        if rejection is not None:
            self._reject(event, rejection)

    def _judge(self, event: evt.Event) -> Rejection | None:
        requestor = event.assoc.requestor
        primitive: Any = requestor.primitive
        calling, called, address = primitive.calling_ae_title, primitive.called_ae_title, requestor.address or ""
        rejection = admit(calling or "", called or "", address, self._settings)
        if rejection is None:
            vars(event.assoc)[_SENDER] = self._receiver.opened(AETitle(calling), address)
        return rejection

    def _reject(self, event: evt.Event, rejection: Rejection) -> None:
        self._log.warning("association rejected", address=event.assoc.requestor.address, reason=rejection.reason)
        event.assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        event.assoc.kill()  # waits until the answer is out and the peer has closed

    def _on_accepted(self, event: evt.Event) -> None:
        sender: Sender = vars(event.assoc)[_SENDER]
        self._log.info("association", association=sender.association, calling_ae=sender.calling_ae)

    def _on_store(self, event: evt.Event) -> Dataset:
        request: Any = event.request
        sender: Sender = vars(event.assoc)[_SENDER]
        answer = self._receiver.store(
            StoreRequest(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                dataset=request.DataSet.getbuffer() if request.DataSet else memoryview(b""),
            ),
            sender,
        )
        return _status(answer)

    def _on_closed(self, event: evt.Event, how: str) -> None:
        if how == "lost" and event.assoc.requestor.primitive is None:
            waiting: Any = event.assoc.dul.to_user_queue
            waiting.put(None)  # nobody will ask any more: ends the wait, and makes room for others
        sender = vars(event.assoc).pop(_SENDER, None)  # the first of these events is the true one
        if sender is not None:
            self._receiver.closed(sender, how)


def _resolve(host: str, port: int) -> Any:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]


def _status(answer: Answer) -> Dataset:
    status = Dataset()
    status.Status = answer.status
    if answer.comment:
        status.ErrorComment = answer.comment
    return status


def _tls(settings: DicomSettings) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls.cert_file, settings.tls.key_file)
        if settings.tls.client_ca_file is not None:
            context.load_verify_locations(settings.tls.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise ConfigurationError(f"dicom.tls: a certificate or key file cannot be used: {error}") from error
    return context
