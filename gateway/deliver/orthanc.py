"""Setting up and checking an Orthanc through its REST API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from orthanc_api_client import OrthancApiClient
from orthanc_api_client.exceptions import OrthancApiException, ResourceNotFound
from requests import RequestException

from gateway.domain.errors import DestinationUnreachable, NotFound

_TIMEOUT = 30.0  # seconds without a byte
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class StoredInstance:
    """One instance in Orthanc."""

    sop_class_uid: str
    sop_instance_uid: str


class OrthancAdmin:
    """One Orthanc. Every method raises DestinationUnreachable where it does not answer, or not with success."""

    def __init__(self, url: str, user: str | None = None, password: str | None = None) -> None:
        """``url`` is the root of the REST API, e.g. http://127.0.0.1:8042."""
        self._url = url.rstrip("/") + "/"  # the client joins paths, and would cut the last part off without it
        self._client = OrthancApiClient(self._url, user=user, pwd=password)

    def version(self) -> str:
        """Version of Orthanc."""
        return str(self._get("system")["Version"])

    def has_dicomweb(self) -> bool:
        """Whether the DICOMweb plugin is loaded."""
        return "dicom-web" in self._get("plugins")

    def add_modality(self, name: str, aet: str, host: str, port: int) -> None:
        """Makes a DICOM peer known, or changes it."""
        configuration = {"AET": aet, "Host": host, "Port": port}
        self._ask(lambda: self._client.put(f"modalities/{name}", json=configuration, timeout=_TIMEOUT))

    def knows_modality(self, name: str, aet: str, host: str, port: int) -> bool:
        """Whether a DICOM peer is known by this name with exactly this title and address."""
        known = self._get("modalities?expand").get(name, {})
        return (known.get("AET"), known.get("Host"), known.get("Port")) == (aet, host, port)

    def studies(self) -> list[str]:
        """Study Instance UIDs, sorted."""
        return sorted(str(study["MainDicomTags"]["StudyInstanceUID"]) for study in self._get("studies?expand"))

    def instances_of(self, study_uid: str) -> list[StoredInstance]:
        """The instances of a study, sorted by SOP Instance UID; none where the study is not there."""
        found = self._find("Study", {"StudyInstanceUID": study_uid})
        instances = [
            StoredInstance(
                sop_class_uid=str(self._get(f"instances/{one['ID']}/metadata/SopClassUid")),
                sop_instance_uid=str(one["MainDicomTags"]["SOPInstanceUID"]),
            )
            for study in found
            for one in self._get(f"studies/{study}/instances")
        ]
        return sorted(instances, key=lambda one: one.sop_instance_uid)

    def download(self, sop_uid: str) -> bytes:
        """The file of an instance; raises NotFound."""
        found = self._find("Instance", {"SOPInstanceUID": sop_uid})
        if not found:
            raise NotFound(f"Orthanc has no instance {sop_uid}")
        return bytes(self._ask(lambda: self._client.get_binary(f"instances/{found[0]}/file", timeout=_TIMEOUT)))

    def _find(self, level: str, query: dict[str, str]) -> list[str]:
        request = {"Level": level, "Query": query, "CaseSensitive": True}
        return list(self._ask(lambda: self._client.post("tools/find", json=request, timeout=_TIMEOUT)).json())

    def _get(self, path: str) -> Any:
        answer = self._ask(lambda: self._client.get(path, timeout=_TIMEOUT))
        return answer.json() if "json" in answer.headers.get("Content-Type", "") else answer.text

    def _ask(self, question: Callable[[], _T]) -> _T:
        try:
            answer = question()
        except ResourceNotFound as error:
            raise NotFound(f"Orthanc at {self._url} has not what was asked for") from error
        except (OrthancApiException, RequestException, ValueError) as error:
            raise DestinationUnreachable(f"Orthanc at {self._url}: {type(error).__name__}") from error
        if answer is None:  # the client swallows some errors of its transport
            raise DestinationUnreachable(f"Orthanc at {self._url} does not answer")
        return answer
