"""What a STOW-RS request is answered with (PS3.18 10.5.3): the Store Instances Response Module in DICOM JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

OUT_OF_RESOURCES = 0xA700
NOT_AS_SAID = 0xA900  # the dataset does not match its SOP class, or the study of the request
CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instance is, or would have been."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str = ""
    series_uid: str = ""


@dataclass
class Tally:
    """What has become of the instances of a request."""

    stored: list[Place] = field(default_factory=list)
    failed: list[tuple[Place, int]] = field(default_factory=list)  # with its Failure Reason
    unnamed: list[int] = field(default_factory=list)  # Failure Reasons of what did not say who it is

    @property
    def total(self) -> int:
        """Instances that were offered."""
        return len(self.stored) + len(self.failed) + len(self.unnamed)

    def status(self) -> HTTPStatus:
        """200 for all, 202 for some, 409 for none."""
        if not self.stored:
            return HTTPStatus.CONFLICT
        return HTTPStatus.OK if len(self.stored) == self.total else HTTPStatus.ACCEPTED

    def headers(self) -> dict[str, str]:
        """A Warning for what was not stored, and when to try again where it was for want of room."""
        missing = self.total - len(self.stored)
        if not missing:
            return {}
        reasons = {reason for _, reason in self.failed} | set(self.unnamed)
        later = {"Retry-After": "60"} if OUT_OF_RESOURCES in reasons else {}
        return {"Warning": f'299 hilum "{missing} of {self.total} instances were not stored"', **later}


def response_module(tally: Tally, base: str) -> dict[str, Any]:
    """The module; `base` is the URL of the DICOMweb service."""
    module: dict[str, Any] = {}
    studies = sorted({place.study_uid for place in tally.stored})
    if len(studies) == 1:
        module["00081190"] = _element("UR", f"{base}/studies/{studies[0]}")
    if tally.failed:
        module["00081198"] = _sequence([{**_reference(place), **_reason(reason)} for place, reason in tally.failed])
    if tally.stored:
        module["00081199"] = _sequence([_reference(place) | _url(place, base) for place in tally.stored])
    if tally.unnamed:
        module["0008119A"] = _sequence([_reason(reason) for reason in tally.unnamed])
    return module


def _reference(place: Place) -> dict[str, Any]:
    return {"00081150": _element("UI", place.sop_class_uid), "00081155": _element("UI", place.sop_instance_uid)}


def _url(place: Place, base: str) -> dict[str, Any]:
    path = f"studies/{place.study_uid}/series/{place.series_uid}/instances/{place.sop_instance_uid}"
    return {"00081190": _element("UR", f"{base}/{path}")}


def _reason(code: int) -> dict[str, Any]:
    return {"00081197": _element("US", code)}


def _element(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value != "" else {"vr": vr}


def _sequence(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}
