"""The DICOM node on pynetdicom: Verification and Storage SCP (PS3.4 annexes A and B).

Everything it hears goes to a `Receiver`; a faster wire can take this file's place without anybody else noticing.
"""

from __future__ import annotations

import ssl
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from gateway.domain.errors import ConfigurationError, HilumError, InvalidIdentifier, ServiceUnavailable
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


class DimseNode:
    """Listens for associations until stopped."""

    def __init__(self, receiver: Receiver, settings: DicomSettings) -> None:
        self._receiver, self._settings = receiver, settings
        self._server: ThreadedAssociationServer | None = None
        self._log = log(stage="receive")

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise ServiceUnavailable("the DICOM node is not listening")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begins to listen; raises ServiceUnavailable when the address cannot be used."""
        settings, handlers = self._settings, self._handlers()
        try:
            self._server = self._entity().start_server(
                (settings.host, settings.port), block=False, evt_handlers=handlers, ssl_context=_tls(settings)
            )
        except OSError as error:
            message = f"cannot listen for DICOM on {settings.host}:{settings.port}: {error.strerror}"
            raise ServiceUnavailable(f"{message}; stop the other program or set dicom.port") from error
        self._log.info("listening", ae_title=settings.ae_title, host=settings.host, port=self.port)

    def stop(self) -> None:
        """Stops listening and ends every association."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _entity(self) -> AE:
        entity = AE(ae_title=self._settings.ae_title)
        entity.maximum_associations = self._settings.max_associations
        entity.maximum_pdu_size = self._settings.max_pdu
        entity.network_timeout = self._settings.idle_timeout
        entity.dimse_timeout = self._settings.idle_timeout
        entity.acse_timeout = min(self._settings.idle_timeout, 30.0)
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
        requestor = event.assoc.requestor
        primitive: Any = requestor.primitive
        rejection = admit(
            primitive.calling_ae_title or "", primitive.called_ae_title or "", requestor.address or "", self._settings
        )
        if rejection is None:
            try:
                calling = AETitle(primitive.calling_ae_title)
                vars(event.assoc)[_SENDER] = self._receiver.opened(calling, requestor.address or "")
            except (HilumError, InvalidIdentifier):
                rejection = NOT_NOW
        if rejection is not None:
            self._reject(event, rejection)

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
        sender = vars(event.assoc).pop(_SENDER, None)  # the first of these events is the true one
        if sender is not None:
            self._receiver.closed(sender, how)


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
