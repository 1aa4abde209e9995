"""What is held, with the files it lies in: the ledger's archive and the spool together."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from http import HTTPStatus
from itertools import groupby
from pathlib import Path

from gateway.domain.archive import Archive, Held
from gateway.domain.errors import HilumError, InvalidIdentifier, NotFound
from gateway.domain.ids import InstanceUID, SeriesUID, StudyUID
from gateway.domain.ports import Spool
from gateway.observe.logs import log
from gateway.receive.header import read_header
from gateway.web.metadata import Json, to_json
from gateway.web.opened import opened
from gateway.web.part10 import read_file_meta
from gateway.web.problem import Refused

_CACHE = 64 * 1024 * 1024  # characters of metadata that are remembered
_MAPPED_HEAD = 16 * 1024 * 1024  # bytes of a result file that are looked at for its header


class Holdings:
    """Finds instances for a request. Results are indexed as they are asked for. Used by many threads."""

    def __init__(self, archive: Archive, spool: Spool) -> None:
        self.archive, self._spool = archive, spool
        self._metadata: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def find(self, study: str, series: str = "", instance: str = "") -> Sequence[Held]:
        """What a URL names, all of it there; raises Refused: 400 for what is no UID, 404 for what is not held."""
        try:
            uids = (
                StudyUID(study),
                SeriesUID(series) if series else None,
                InstanceUID(instance) if instance else None,
            )
        except InvalidIdentifier as error:
            raise Refused(HTTPStatus.BAD_REQUEST, error.message) from None
        self.catch_up()
        held = self.archive.held(*uids)
        if not held:
            level = "instance" if instance else "series" if series else "study"
            raise Refused(HTTPStatus.NOT_FOUND, f"no such {level} is held here")
        return held

    def path(self, held: Held) -> Path:
        """The file of an instance; raises Refused (410) where it has gone."""
        try:
            return self._spool.path(held.file)
        except NotFound:
            raise Refused(HTTPStatus.GONE, "the file of this instance is no longer here") from None

    def spool_path(self, key: str) -> Path | None:
        """The file of a key, where it is there."""
        try:
            return self._spool.path(key)
        except NotFound:
            return None

    def metadata(self, held: Held, base: str) -> str:
        """An instance as DICOM JSON text; of a dataset that cannot be read no more than its identifiers."""
        key = (held.sha256, base)
        with self._lock:
            if (text := self._metadata.get(key)) is not None:
                self._metadata.move_to_end(key)
                return text
        text = json.dumps(self._read(held, base), separators=(",", ":"), ensure_ascii=False)
        with self._lock:
            if key not in self._metadata:
                self._metadata[key], self._size = text, self._size + len(text)
            while self._size > _CACHE:
                self._size -= len(self._metadata.popitem(last=False)[1])
        return text

    def catch_up(self) -> None:
        """Reads the headers of results that nobody has asked for yet."""
        for job, files in groupby(self.archive.unindexed(), key=lambda item: item.job_id):
            found = []
            for item in files:
                try:
                    found.append(self._result(item.file, item.size, item.sha256))
                except (HilumError, OSError) as error:
                    log(stage="web").warning("result cannot be shown", job_id=job, error=type(error).__name__)
            self.archive.index_results(job, found)

    def _result(self, file: str, size: int, sha256: str) -> Held:
        with self._spool.path(file).open("rb") as stream:
            head = memoryview(stream.read(_MAPPED_HEAD))
        meta = read_file_meta(head)
        header = read_header(head[meta.length :], meta.transfer_syntax_uid)
        return Held(header=header, file=file, size=size, sha256=sha256)

    def _read(self, held: Held, base: str) -> Json:
        try:
            with opened(self.path(held)) as one:
                return to_json(one, instance_url(held, base))
        except (HilumError, OSError, Refused):
            named = {
                "00080016": held.header.sop_class_uid,
                "00080018": held.header.sop_instance_uid,
                "0020000D": held.header.study_uid,
                "0020000E": held.header.series_uid,
            }
            return {tag: {"vr": "UI", "Value": [str(uid)]} for tag, uid in named.items()}


def instance_url(held: Held, base: str) -> str:
    """Where an instance is retrieved from."""
    header = held.header
    return f"{base}/studies/{header.study_uid}/series/{header.series_uid}/instances/{header.sop_instance_uid}"
