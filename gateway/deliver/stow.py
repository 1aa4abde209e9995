"""Results to a PACS by STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from io import BytesIO

import httpx2
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gateway.deliver import multipart
from gateway.deliver.content import content_digest
from gateway.deliver.part10 import place
from gateway.deliver.settings import DicomwebDestination
from gateway.deliver.status import is_duplicate, judge_duplicate
from gateway.deliver.stow_answer import Reading, found_classes, read_answer
from gateway.domain.errors import ConfigurationError, DestinationUnreachable
from gateway.domain.job import Receipt, Verdict
from gateway.domain.ports import ObjectFile
from gateway.outgoing import open_client, read_secret
from gateway.tls import ClientTls, client_context

_LARGEST_ANSWER = 1 << 20  # bytes, to a STOW or QIDO request
_SLOWEST = 64 * 1024  # bytes a second that a working link moves at least


class _TooMuch(Exception):
    """The answer is larger, or takes longer, than any sensible one."""


class StowPacs:
    """A `Pacs` that speaks DICOMweb."""

    def __init__(self, destination: DicomwebDestination) -> None:
        """Raises ConfigurationError where the CA file cannot be used."""
        self._destination = destination
        self._url = destination.url.rstrip("/")
        self._tls = client_context(ClientTls(ca_file=destination.ca_file))

    def store(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """Sends objects in one request; one receipt for each SOP Instance UID. Raises nothing.

        A request that is refused as a whole is repeated object by object, so that one does not stand in the way of
        the others. Where the answer leaves doubt (duplicate, warning, or success without naming the object) the object
        is retrieved and its content compared: missing is tried again, another content under the same UID is rejected.
        """
        there = [one for one in objects if one.path.is_file()]
        receipts = {one.sop_instance_uid: _retry("the file is gone") for one in objects if one not in there}
        if not there:
            return receipts
        try:
            with self._client() as client:
                return receipts | self._store(client, there)
        except ConfigurationError as error:
            return receipts | {one.sop_instance_uid: _retry(error.message) for one in there}

    def echo(self) -> str:
        """Asks for one study by QIDO-RS; raises DestinationUnreachable."""
        started = time.monotonic()
        try:
            with self._client() as client:
                code, _, _ = self._exchange(
                    client.build_request(
                        "GET",
                        f"{self._url}/studies",
                        params={"limit": "1"},
                        headers={"Accept": "application/dicom+json"},
                    ),
                    client,
                    _LARGEST_ANSWER,
                )
        except (httpx2.HTTPError, httpx2.InvalidURL, _TooMuch, ConfigurationError) as error:
            raise DestinationUnreachable(f"QIDO-RS at {self._url}: {_say(error)}") from error
        if code not in (200, 204):
            raise DestinationUnreachable(f"QIDO-RS at {self._url}: HTTP {code}")
        return f"QIDO-RS answered by {self._url} with {code} in {(time.monotonic() - started) * 1000:.0f} ms"

    def _store(self, client: httpx2.Client, objects: Sequence[ObjectFile]) -> dict[str, Receipt]:
        reading = self._post(client, objects)
        if reading.refused and reading.refused.verdict is Verdict.REJECTED and len(objects) > 1:
            parts = [self._store(client, [one]) for one in objects]
            return {uid: receipt for part in parts for uid, receipt in part.items()}
        receipts = {one.sop_instance_uid: reading.refused for one in objects} if reading.refused else reading.receipts
        for one in objects:
            uid = one.sop_instance_uid
            if uid in reading.doubtful:
                receipts[uid] = _judge_doubtful(reading.doubtful[uid], self._find(client, one))
        return receipts

    def _post(self, client: httpx2.Client, objects: Sequence[ObjectFile]) -> Reading:
        boundary = secrets.token_hex(16)
        paths = [one.path for one in objects]
        try:
            length = multipart.body_length([path.stat().st_size for path in paths], boundary)
            request = client.build_request(
                "POST",
                f"{self._url}/studies",
                content=multipart.body(paths, boundary),
                headers={
                    "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                    "Content-Length": str(length),
                    "Accept": "application/dicom+json",
                },
            )
            code, _, payload = self._exchange(request, client, _LARGEST_ANSWER, length / _SLOWEST)
        except OSError as error:
            return Reading(refused=_retry(f"cannot read the file: {error.strerror}"))
        except (httpx2.HTTPError, httpx2.InvalidURL, _TooMuch) as error:
            return Reading(refused=_retry(_say(error)))
        return read_answer(code, payload, [one.sop_instance_uid for one in objects])

    def read_back(self, objects: Sequence[ObjectFile]) -> Mapping[str, Receipt]:
        """Retrieves each object by WADO-RS and compares it; where there is no WADO-RS, QIDO-RS must find it. Raises nothing."""
        try:
            with self._client() as client:
                return {one.sop_instance_uid: self._find(client, one) for one in objects}
        except ConfigurationError as error:
            return {one.sop_instance_uid: _retry(error.message) for one in objects}

    def _find(self, client: httpx2.Client, one: ObjectFile) -> Receipt:
        """Retrieves an object (PS3.18 10.4) and compares it."""
        try:
            mine = one.path.read_bytes()
            study, series = place(one.path)
            request = client.build_request(
                "GET",
                f"{self._url}/studies/{study}/series/{series}/instances/{one.sop_instance_uid}",
                headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
            )
            limit = 2 * len(mine) + _LARGEST_ANSWER
            code, kind, payload = self._exchange(request, client, limit, limit / _SLOWEST)
            if code in (404, 410):
                return Receipt(verdict=Verdict.MISSING, answer="the object is not there")
            if code in (405, 501):
                return self._search(client, one, study)
            if code != 200:
                return _retry(f"reading back gives HTTP {code}")
            same = _same(mine, multipart.first_part(kind, payload))
        except (httpx2.HTTPError, httpx2.InvalidURL, _TooMuch) as error:
            return _retry(f"reading back fails: {_say(error)}")
        except (OSError, ValueError, InvalidDicomError, NotImplementedError):
            return _retry("what is read back cannot be compared")
        if not same:
            text = "the destination has other content under this UID"
            return Receipt(verdict=Verdict.REJECTED, answer=text)
        return Receipt(verdict=Verdict.ACCEPTED, answer="read back with the same content")

    def _search(self, client: httpx2.Client, one: ObjectFile, study: str) -> Receipt:
        """Asks by QIDO-RS (PS3.18 10.6) whether an object is there, and whether it is of the same class."""
        request = client.build_request(
            "GET",
            f"{self._url}/studies/{study}/instances",
            params={"SOPInstanceUID": one.sop_instance_uid},
            headers={"Accept": "application/dicom+json"},
        )
        code, _, payload = self._exchange(request, client, _LARGEST_ANSWER)
        if code not in (200, 204):
            return Receipt(verdict=Verdict.UNSUPPORTED, answer="there is neither WADO-RS nor QIDO-RS to look with")
        classes = found_classes(payload, one.sop_instance_uid)
        if not classes:
            return Receipt(verdict=Verdict.MISSING, answer="QIDO-RS does not find it")
        if classes != {one.sop_class_uid}:
            return Receipt(verdict=Verdict.REJECTED, answer="the destination has another class under this UID")
        return Receipt(verdict=Verdict.ACCEPTED, answer="found by QIDO-RS, SOPClassUID agrees")

    def _exchange(
        self, request: httpx2.Request, client: httpx2.Client, limit: int, extra_seconds: float = 0.0
    ) -> tuple[int, str, bytes]:
        """Sends a request; status, content type and at most ``limit`` bytes, in limited time."""
        end = time.monotonic() + 2 * self._destination.timeout + extra_seconds
        response = client.send(request, stream=True)
        try:
            payload = bytearray()
            for chunk in response.iter_bytes():
                payload += chunk
                if len(payload) > limit or time.monotonic() > end:
                    raise _TooMuch
            return response.status_code, response.headers.get("Content-Type", ""), bytes(payload)
        finally:
            response.close()

    def _client(self) -> httpx2.Client:
        to = self._destination
        headers = {"Accept-Encoding": "identity"}
        if to.token_file:
            headers["Authorization"] = f"Bearer {read_secret('token_file', to.token_file)}"
        basic = (to.user, read_secret("password_file", to.password_file)) if to.user and to.password_file else None
        return open_client(self._tls, to.timeout, headers=headers, basic=basic)


def _judge_doubtful(said: Receipt, finding: Receipt) -> Receipt:
    """A duplicate counts for what compares equal; a warning counts unless what is there is something else."""
    if said.verdict is Verdict.ACCEPTED and finding.verdict in (Verdict.RETRY, Verdict.UNSUPPORTED):
        return Receipt(verdict=Verdict.ACCEPTED, answer=f"{said.answer}; {finding.answer}")
    if is_duplicate(said) or finding.verdict is not Verdict.UNSUPPORTED:
        return judge_duplicate(said, finding)
    return _retry(f"{said.answer}, but {finding.answer}")


def _same(mine: bytes, theirs: bytes) -> bool:
    return mine == theirs or content_digest(dcmread(BytesIO(mine))) == content_digest(dcmread(BytesIO(theirs)))


def _say(error: Exception) -> str:
    if isinstance(error, ConfigurationError):
        return error.message
    if isinstance(error, httpx2.ConnectError):
        return "cannot connect"
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    return "the answer is too large or too slow" if isinstance(error, _TooMuch) else "the connection broke"


def _retry(answer: str) -> Receipt:
    return Receipt(verdict=Verdict.RETRY, answer=answer)
