"""What an Orthanc has under a SOP Instance UID, by its REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gateway.deliver.content import content_digest
from gateway.deliver.orthanc import OrthancAdmin
from gateway.deliver.settings import RestApi
from gateway.domain.errors import ConfigurationError, DestinationUnreachable, NotFound
from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile
from gateway.outgoing import read_secret


class OrthancReader:
    """Downloads stored objects and compares them."""

    def __init__(self, api: RestApi) -> None:
        self._api = api

    def read_back(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """A finding for each SOP Instance UID. Raises nothing."""
        try:
            file = self._api.password_file
            password = read_secret("orthanc.password_file", file) if file else None
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


def _later(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
