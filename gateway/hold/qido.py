"""How much a DICOMweb source has of a study: QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
from pydicom.dataset import Dataset

from gateway.domain.errors import ConfigurationError, NoAnswer
from gateway.domain.evidence import SeriesCount, SourceCount
from gateway.domain.ids import SeriesUID, StudyUID
from gateway.hold.counts import number, series_uid
from gateway.hold.settings import WebQuery
from gateway.outgoing import open_client, read_secret
from gateway.tls import ClientTls, client_context

_LARGEST_ANSWER = 16 << 20  # bytes
_PAGE = 1000  # instances asked for at once
_MOST_INSTANCES = 20_000  # of one series; one with more is not counted
_MOST_SECONDS = 30.0  # for all questions about one study


class QidoSource:
    """A `gateway.hold.inquirer.Source` that is asked by QIDO-RS."""

    def __init__(self, query: WebQuery) -> None:
        """Raises ConfigurationError where the CA file cannot be used."""
        self._query, self._url = query, query.url.rstrip("/")
        self._tls = client_context(ClientTls(ca_file=query.ca_file))
        self.name = f"{httpx2.URL(query.url).host} by QIDO-RS"

    def count(self, study: StudyUID) -> SourceCount:
        """Asks for the study and its series, and for the instances where it leaves out the counts of series."""
        end = time.monotonic() + _MOST_SECONDS
        try:
            with self._client() as client:
                questions = _Questions(client, self._url, study, end)
                return SourceCount(
                    source=self.name, asked_at=0.0, instances=questions.total(), series=tuple(questions.series())
                )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise NoAnswer("the connection broke" if _connected(error) else "cannot connect") from error
        except ConfigurationError as error:
            raise NoAnswer(error.message) from error

    def _client(self) -> httpx2.Client:
        query = self._query
        headers, basic = {}, None
        if query.token_file:
            headers["Authorization"] = f"Bearer {read_secret('token_file', query.token_file)}"
        if query.user:
            password = read_secret("password_file", query.password_file) if query.password_file else ""
            basic = (query.user, password)
        return open_client(self._tls, query.timeout, headers=headers, basic=basic)


class _Questions:
    """The questions about one study."""

    def __init__(self, client: httpx2.Client, url: str, study: StudyUID, end: float) -> None:
        self._client, self._url, self._study, self._end = client, url, study, end

    def total(self) -> int:
        """Number of Study Related Instances; 0 where it does not say."""
        found = self._get("/studies", {"StudyInstanceUID": self._study, "includefield": "00201208"})
        return max((number(one, "NumberOfStudyRelatedInstances") or 0 for one in found), default=0)

    def series(self) -> Iterator[SeriesCount]:
        """Each series once."""
        found = {
            series_uid(one): one for one in self._get(f"/studies/{self._study}/series", {"includefield": "00201209"})
        }
        for uid, one in found.items():
            if uid is not None:
                count = number(one, "NumberOfSeriesRelatedInstances")
                instances = self._images(uid) if count is None else count
                yield SeriesCount(series_uid=uid, modality=str(one.get("Modality") or ""), instances=instances)

    def _images(self, series: SeriesUID) -> int:
        seen: set[str] = set()
        while True:
            query = {"limit": str(_PAGE), "offset": str(len(seen))}
            page = self._get(f"/studies/{self._study}/series/{series}/instances", query)
            news = {str(one.get("SOPInstanceUID")) for one in page} - seen
            if not news:
                return len(seen)
            seen |= news
            if len(seen) > _MOST_INSTANCES:
                raise NoAnswer("its answer has no end")

    def _get(self, path: str, query: dict[str, str]) -> list[Dataset]:
        headers = {"Accept": "application/dicom+json"}
        request = self._client.build_request("GET", f"{self._url}{path}", params=query, headers=headers)
        response = self._client.send(request, stream=True)
        try:
            if response.status_code in (204, 404):
                return []
            if response.status_code != 200:
                raise NoAnswer(f"HTTP {response.status_code}")
            return _read(self._body(response))
        finally:
            response.close()

    def _body(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _LARGEST_ANSWER or time.monotonic() > self._end:
                raise NoAnswer("its answer has no end")
        return bytes(body)


def _read(body: bytes) -> list[Dataset]:
    try:
        found: Any = json.loads(body) if body else []
        return [Dataset.from_json(item) for item in found]
    # What a server sends may be anything, and the reader has no error of its own for it.
    except Exception as error:
        raise NoAnswer("its answer is not DICOM JSON") from error


def _connected(error: Exception) -> bool:
    return not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.InvalidURL)
