"""What an Orthanc has under a SOP Instance UID, by its REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gateway.deliver.content import content_digest
from gateway.deliver.orthanc import OrthancAdmin
from gateway.deliver.settings import RestApi
from gateway.domain.errors import ConfigurationError, DestinationUnreachable, NotFound
from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile


class OrthancReader:
    """Downloads stored objects and compares them."""

    def __init__(self, api: RestApi) -> None:
        self._api = api

    def read_back(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """A finding for each SOP Instance UID. Raises nothing."""
        try:
            password = _secret(self._api.password_file)
        except ConfigurationError as error:
            return {one.sop_instance_uid: _later(error.message) for one in objects}
        admin = OrthancAdmin(self._api.url, self._api.user, password)
        return {one.sop_instance_uid: _compare(admin, one) for one in objects}


def _compare(admin: OrthancAdmin, one: ObjectFile) -> Receipt:
    try:
        theirs = admin.download(one.sop_instance_uid)
        mine = one.path.read_bytes()
        same = mine == theirs or content_digest(dcmread(BytesIO(mine))) == content_digest(dcmread(BytesIO(theirs)))
    except NotFound as error:
        return Receipt(verdict=Verdict.MISSING, answer=error.message)
    except DestinationUnreachable as error:
        return _later(error.message)
    except (OSError, ValueError, InvalidDicomError, NotImplementedError):
        return _later("what is read back cannot be compared")
    if not same:
        return Receipt(verdict=Verdict.REJECTED, answer="Orthanc has other content under this UID")
    return Receipt(verdict=Verdict.ACCEPTED, answer="read back from Orthanc with the same content")


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"orthanc.password_file cannot be read: {type(error).__name__}") from error


def _later(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
