"""A DICOM node that listens for tests, and senders that say to it whatever a test wants."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification

from gateway.domain.ids import InstanceUID
from gateway.receive.dimse import DimseNode
from gateway.receive.receiver import Receiver
from gateway.receive.service import DimseService
from gateway.receive.settings import DicomSettings
from gateway.store.spool import LocalSpool
from tests.support.ledgers import make_ledger
from tests.support.received import MovedClock, dataset, encode

EXPLICIT = [build_context(MRImageStorage, ExplicitVRLittleEndian)]


class Site:
    """A node that listens on a free port, with everything behind it."""

    def __init__(self, directory: Path, settings: DicomSettings, services: Sequence[DimseService] = ()) -> None:
        self.ledger, self.spool = make_ledger(directory), LocalSpool(directory / "spool")
        self.node = DimseNode(Receiver(self.spool, self.ledger, MovedClock(), settings), settings, services)
        self.node.start()
        self.port = self.node.port

    def digest(self, uid: str) -> str | None:
        """SHA-256 of the dataset as it lies in the spool."""
        kept = self.ledger.instance(InstanceUID(uid))
        if kept is None:
            return None
        assert dataset_digest(self.spool.path(kept.file)) == kept.sha256
        return kept.sha256

    def close(self) -> None:
        self.node.stop()
        self.ledger.close()


def dataset_digest(path: Path) -> str:
    """SHA-256 of what follows the file meta information."""
    start = 132 + 12 + int(read_file_meta_info(path).FileMetaInformationGroupLength)
    return hashlib.sha256(path.read_bytes()[start:]).hexdigest()


def file(path: Path, number: int = 1, syntax: UID = ExplicitVRLittleEndian, **attributes: object) -> Path:
    """A small image on disk."""
    made = dataset(number, **attributes)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(
        path, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
    )
    return path


def associate(site: Site, contexts: Sequence[object] = (), **more: object):  # type: ignore[no-untyped-def]
    """An association by pynetdicom."""
    entity = AE("TESTER")
    wanted = list(contexts) or [build_context(MRImageStorage), build_context(Verification)]
    return entity.associate("127.0.0.1", site.port, contexts=wanted, ae_title=str(more.pop("called", "HILUM")), **more)  # type: ignore[arg-type]


def wait(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Looks until it is so, and fails when it has not become so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.02)


def send(association, made: Dataset, raw: bytes | None = None, uid: str = "") -> Dataset:  # type: ignore[no-untyped-def]
    """A C-STORE of a dataset, or of any bytes, under any SOP Instance UID."""
    if raw is None and not uid:
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = association.accepted_contexts[0].transfer_syntax[0]
        return association.send_c_store(made)  # type: ignore[no-any-return]
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = made.SOPClassUID, UID(uid or made.SOPInstanceUID)
    request.DataSet = BytesIO(raw if raw is not None else encode(made))
    context = association.accepted_contexts[0].context_id
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    answer = Dataset()
    answer.Status, answer.ErrorComment = response.Status, response.ErrorComment
    return answer


def associations() -> list[str]:
    """Threads of the node that serve a connection: named after the address, unlike those that write down ends."""
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("association ")]
    return [name for name in names if name != "association ends"]


def descriptors() -> int:
    """How many files and sockets this process has open, the ledger's pool of connections apart."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += "ledger.db" not in str(entry.readlink())
    return count


def recorded(site: Site) -> bytes:
    """What a sender of one instance says, by a proxy that writes it down."""
    said = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on() -> None:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", site.port))

            def back() -> None:
                while data := far.recv(65536):
                    near.sendall(data)

            threading.Thread(target=back, daemon=True).start()
            while data := near.recv(65536):
                said.extend(data)
                far.sendall(data)

        threading.Thread(target=pass_on, daemon=True).start()
        association = AE("TESTER").associate(
            "127.0.0.1", listener.getsockname()[1], contexts=EXPLICIT, ae_title="HILUM"
        )
        assert send(association, dataset()).Status == 0x0000
        association.release()
    return bytes(said)


Make = Callable[..., Site]
"""Starts a site with these settings of its node."""
