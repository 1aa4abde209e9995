"""`hilum send`: a small C-STORE sender for trials."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import MediaStorageDirectoryStorage
from rich.console import Console
from rich.progress import Progress

from gateway.deliver.cstore import CStorePacs
from gateway.deliver.settings import DicomDestination
from gateway.domain.errors import ConfigurationError
from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile


def find_objects(source: Path) -> list[ObjectFile]:
    """The DICOM instances below a folder, sorted by name; other files, and directories of media, are left out."""
    found = []
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        try:
            meta = read_file_meta_info(file)
            classes, uid = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
            if classes != MediaStorageDirectoryStorage:
                found.append(ObjectFile(sop_class_uid=classes, sop_instance_uid=uid, path=file))
        except (InvalidDicomError, AttributeError, EOFError, OSError, ValueError):
            continue
    return found


def send(source: Path, host: str, port: int, called_aet: str, calling_aet: str, as_json: bool) -> int:
    """Sends a folder over one association and says what was answered; returns the exit status."""
    if not source.is_dir():
        raise ConfigurationError(f"{source} is not a folder")
    objects = find_objects(source)
    if not objects:
        raise ConfigurationError(f"no DICOM file in {source}")
    started = time.monotonic()
    receipts = send_objects(objects, host, port, called_aet, calling_aet)
    seconds = time.monotonic() - started
    refused = {uid: receipt.answer for uid, receipt in receipts.items() if receipt.verdict is not Verdict.ACCEPTED}
    if as_json:
        print(
            json.dumps(
                {"sent": len(receipts) - len(refused), "refused": refused, "seconds": round(seconds, 3)}, indent=2
            )
        )
    else:
        console = Console()
        console.print(f"{len(receipts) - len(refused)} of {len(receipts)} instances stored in {seconds:.1f} s")
        for answer, count in Counter(refused.values()).items():
            console.print(f"  {count} refused: {answer}", markup=False)
    return 1 if refused else 0


def send_objects(
    objects: list[ObjectFile], host: str, port: int, called_aet: str, calling_aet: str
) -> dict[str, Receipt]:
    """Sends objects with a progress bar on stderr; one receipt for each SOP Instance UID."""
    try:
        destination = DicomDestination(kind="dicom", ae_title=called_aet, host=host, port=port)
    except ValueError as error:
        raise ConfigurationError(f"cannot call {called_aet!r} at {host}:{port}: {error}") from error
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("C-STORE", total=len(objects))
        pacs = CStorePacs(destination, calling_aet, on_answer=lambda: bar.advance(task))
        return dict(pacs.store(objects))
