"""Every error Hilum raises on purpose.

HilumError
├── ConfigurationError          the site's file, flag or environment is wrong
├── PeerError                   what came from outside is wrong
│   ├── InvalidIdentifier       a UID or AE title that is none
│   ├── NotDicom                bytes that are not a DICOM dataset, or too broken to read its header
│   ├── DatasetMismatch         the dataset is not what the command said it is
│   ├── UpperLayerError         bytes that are not the DICOM upper layer protocol, or more of them than we take
│   ├── ConnectionLost          the connection ended, or was silent or slow for too long
│   └── NoAnswer                a source does not answer a question, or not with anything that can be used
├── InputRefused                well-formed images that a model must not be run on
├── ModelError                  the model or its process failed
│   ├── ModelCrashed            the child process died (signal, exit code)
│   ├── ModelTimedOut           the child process ran over its time limit
│   ├── ModelOutOfMemory        the child process ran out of memory
│   ├── ModelDenied             the model tried what its sandbox does not allow
│   ├── ModelOutputInvalid      NaN, wrong shape, nothing where something must be
│   └── BundleInvalid           the bundle cannot be read, or is not the one that was admitted
├── GateRefused                 a result object is not right, and does not leave
├── DeliveryError               a destination did not take an object or message
│   ├── DestinationUnreachable  no connection, no answer: try again
│   └── MessageInvalid          what we built does not pass our own validation
├── StorageFull                 no room to keep what is offered
├── LedgerError                 the ledger could not be read or written
│   ├── LedgerUnavailable       nobody can use the ledger now: locked, full, unreachable
│   ├── LeaseLost               another worker holds the job now: throw the result away
│   ├── NotFound                no such study, job or delivery
│   └── ReportRefused           no further report about this job can be made
└── ServiceUnavailable          a part of our own (broker, port) cannot be started

Each class says whose fault it is, what to answer a DICOM peer (PS3.4 annex GG, table GG.4-1), with what status
the command line ends, and whether the same call may succeed later.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Fault(Enum):
    """Who can mend it."""

    PEER = "peer"  # the sender or receiver on the other side
    SITE = "site"  # whoever wrote the configuration or runs the machine
    MODEL = "model"  # whoever made the bundle
    OURS = "ours"  # Hilum


class HilumError(Exception):
    """Something went wrong."""

    fault: ClassVar[Fault] = Fault.OURS
    dimse_status: ClassVar[int] = 0x0110  # processing failure
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.code = code or type(self).__name__
        super().__init__(self.message)


class ConfigurationError(HilumError):
    """The configuration is wrong."""

    fault = Fault.SITE
    exit_status = 2


class PeerError(HilumError):
    """What came from outside is wrong."""

    fault = Fault.PEER
    dimse_status = 0xC000


class InvalidIdentifier(PeerError, ValueError):
    """The identifier is not valid."""


class NotDicom(PeerError):
    """The data is not a readable DICOM dataset."""


class DatasetMismatch(PeerError):
    """The dataset does not match the SOP class or instance UID of the request."""

    dimse_status = 0xA900


class UpperLayerError(PeerError):
    """The peer breaks the DICOM upper layer protocol."""

    def __init__(self, message: str | None = None, reason: int = 0, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.reason = reason  # of the A-ABORT that ends the association (PS3.8 table 9-26)


class ConnectionLost(PeerError):
    """The connection to the peer is lost."""


class NoAnswer(PeerError):
    """The source gives no answer that can be used."""

    retryable = True


class InputRefused(HilumError):
    """The model must not be run on these images."""

    fault = Fault.PEER


class ModelError(HilumError):
    """The model failed."""

    fault = Fault.MODEL


class ModelCrashed(ModelError):
    """The model's process died."""


class ModelTimedOut(ModelError):
    """The model's process ran over its time limit."""


class ModelOutOfMemory(ModelError):
    """The model's process ran out of memory."""


class ModelDenied(ModelError):
    """The model tried what its sandbox does not allow."""


class ModelOutputInvalid(ModelError):
    """The model's output is not what its manifest promises."""


class BundleInvalid(ModelError):
    """The bundle cannot be used."""

    exit_status = 2


class GateRefused(HilumError):
    """A result object is not right."""


class DeliveryError(HilumError):
    """The destination did not take it."""

    fault = Fault.PEER


class DestinationUnreachable(DeliveryError):
    """The destination cannot be reached."""

    retryable = True


class MessageInvalid(DeliveryError):
    """The message does not pass validation."""

    fault = Fault.OURS


class StorageFull(HilumError):
    """There is no room to store this."""

    fault = Fault.SITE
    dimse_status = 0xA700  # refused: out of resources
    retryable = True


class LedgerError(HilumError):
    """The ledger cannot be used."""

    dimse_status = 0xA700
    retryable = True


class LedgerUnavailable(LedgerError):
    """Nobody can use the ledger now."""


class LeaseLost(LedgerError):
    """Another worker holds this job now."""


class NotFound(LedgerError):
    """There is no such record."""

    fault = Fault.SITE
    retryable = False


class ReportRefused(LedgerError):
    """No further report about this job can be made."""

    fault = Fault.SITE
    retryable = False


class ServiceUnavailable(HilumError):
    """A service Hilum needs cannot be started."""

    fault = Fault.SITE
    exit_status = 2
