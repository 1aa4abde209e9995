"""QIDO-RS query parameters (PS3.18 8.3.4, 10.6; PS3.4 C.2.2.2) to a search. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from gateway.domain.archive import SEARCHABLE, Condition, Search
from gateway.domain.errors import InvalidIdentifier
from gateway.domain.ids import Uid
from gateway.web.problem import Refused

DEFAULT_LIMIT, LARGEST_LIMIT = 1000, 5000
_LONGEST_VALUE = 1024  # characters
_MOST_WILDCARDS = 8
_MOST_FIELDS = 200
_LEVELS = ("study", "series", "instance")

FIELDS = {
    "StudyInstanceUID": "study_uid",
    "PatientID": "patient_id",
    "PatientName": "patient_name",
    "PatientBirthDate": "birth_date",
    "PatientSex": "sex",
    "AccessionNumber": "accession_number",
    "StudyID": "study_id",
    "StudyDate": "study_date",
    "StudyTime": "study_time",
    "StudyDescription": "study_description",
    "ReferringPhysicianName": "referring_physician",
    "ModalitiesInStudy": "modalities_in_study",
    "SeriesInstanceUID": "series_uid",
    "Modality": "modality",
    "SeriesDescription": "series_description",
    "SeriesNumber": "series_number",
    "BodyPartExamined": "body_part",
    "ProtocolName": "protocol_name",
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "InstanceNumber": "instance_number",
}
"""Attributes that can be matched, and the fields of a `Condition` they are."""

_ALIASES = {"SOPClassesInStudy": "sop_class_uid"}
_UIDS = ("study_uid", "series_uid", "sop_instance_uid", "sop_class_uid")
_LISTS = (*_UIDS, "modality", "modalities_in_study")
_DATES, _TIMES = ("study_date", "birth_date"), ("study_time",)
_DATE, _TIME = re.compile(r"[0-9]{8}"), re.compile(r"([0-9]{2}){1,3}(\.[0-9]{1,6})?")
_NOT_DONE = {
    "fuzzymatching": "Only literal matching has been performed.",
    "emptyvaluematching": "Empty Value Matching has not been performed.",
    "multiplevaluematching": "Multiple Value Matching has not been performed.",
}
"""Parameters that ask for more than we do, and what is to be said then (PS3.18 8.3.4.2, 8.3.4.5, 8.3.4.6)."""
_SERVICE_PARAMETERS = ("limit", "offset", "includefield", "accept", "charset", *_NOT_DONE)


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a client wants to find, and which attributes it wants to see of it."""

    search: Search
    tags: tuple[int, ...] = ()  # that it asks for beside those it gets anyway
    everything: bool = False
    warnings: tuple[str, ...] = field(default=())


def parse(level: str, parameters: Iterable[tuple[str, str]], within: Sequence[Condition] = ()) -> Query:
    """A query at a level (`study`, `series`, `instance`); `within` is what the URL's path says. Raises Refused (400)."""
    service: dict[str, list[str]] = {name: [] for name in _SERVICE_PARAMETERS}
    conditions: list[Condition] = []
    for name, value in parameters:
        if name.lower() in service:
            service[name.lower()].append(value)
        elif value not in ("", "*"):  # universal matching
            conditions.append(_condition(level, name, value))
    limit, capped = _limit(service["limit"])
    fields = [part.strip() for value in service["includefield"] for part in value.split(",") if part.strip()]
    if len(fields) > _MOST_FIELDS:
        raise _bad(f"more than {_MOST_FIELDS} includefield")
    warnings = [f"The limit is {LARGEST_LIMIT}."] if capped else []
    for name, said in _NOT_DONE.items():
        if service[name] and service[name][-1].lower() == "true":
            warnings.append(f"The {name} parameter is not supported. {said}")
    return Query(
        search=Search(
            conditions=(*within, *_together(conditions)), limit=limit, offset=_number(service["offset"], "offset", 0)
        ),
        tags=tuple(_tag(name) for name in fields if name.lower() != "all"),
        everything=any(name.lower() == "all" for name in fields),
        warnings=tuple(warnings),
    )


def of_path(**uids: str) -> list[Condition]:
    """Conditions for the UIDs that a URL's path names; raises Refused (400) for one that is none."""
    return [Condition(field=name, values=(_uid(uid),)) for name, uid in uids.items() if uid]


def _condition(level: str, name: str, value: str) -> Condition:
    if len(value) > _LONGEST_VALUE or "\0" in value:
        raise _bad(f"the value of {_shown(name)} is too long or holds a NUL")
    keyword = keyword_for_tag(_tag(name))
    one = FIELDS.get(keyword) or _ALIASES.get(keyword)
    known = {name for above in _LEVELS[: _LEVELS.index(level) + 1] for name in SEARCHABLE[above]}
    if one not in known or "." in name:
        raise _bad(f"matching by {_shown(name)} is not supported at the {level} level")
    if one in _DATES or one in _TIMES:
        return _range(one, keyword, value)
    values = tuple(re.split(r"[\\,]", value)) if one in _LISTS else (value,)
    if one in _UIDS:
        return Condition(field=one, values=tuple(_uid(uid) for uid in values))
    if value.count("*") > _MOST_WILDCARDS:
        raise _bad(f"more than {_MOST_WILDCARDS} wildcards in {keyword}")
    return Condition(field=one, values=values, wildcard="*" in value or "?" in value)


def _range(field: str, keyword: str, value: str) -> Condition:
    low, dash, high = value.partition("-")
    form = _DATE if field in _DATES else _TIME
    if not (low or high) or not all(form.fullmatch(end) for end in (low, high) if end):
        kind = "YYYYMMDD" if field in _DATES else "HHMMSS"
        raise _bad(f"{keyword} must be {kind}, or a range {kind}-{kind}")
    if field in _TIMES:  # ten o'clock may be written down as 10, 1000, 100000 and 100000.000
        low = re.sub(r"(?<=..)(00)*(\.0*)?$", "", low)
    if dash:
        return Condition(field=field, low=low, high=high)
    if field in _DATES:
        return Condition(field=field, values=(low,))
    return Condition(field=field, low=low, high=re.sub(r"\.0*$", "", value))


def _together(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Lists that are given piece by piece, a parameter for each value, as one."""
    lists: dict[str, Condition] = {}
    others = []
    for one in conditions:
        if one.field not in _LISTS or one.wildcard:
            others.append(one)
        elif one.field in lists:
            lists[one.field] = replace(one, values=lists[one.field].values + one.values)
        else:
            lists[one.field] = one
    return (*lists.values(), *others)


def _tag(name: str) -> int:
    first = name.partition(".")[0]  # of an attribute within a sequence, the sequence
    if re.fullmatch(r"[0-9A-Fa-f]{8}", first):
        return int(first, 16)
    tag = tag_for_keyword(first) if first.isascii() and first.isalnum() else None
    if tag is None:
        raise _bad(f"{_shown(name)} is no attribute")
    return tag


def _uid(text: str) -> str:
    try:
        return Uid(text.strip())
    except InvalidIdentifier as error:
        raise _bad(error.message) from None


def _limit(values: Sequence[str]) -> tuple[int, bool]:
    limit = _number(values, "limit", DEFAULT_LIMIT)
    return min(limit, LARGEST_LIMIT), limit > LARGEST_LIMIT


def _number(values: Sequence[str], name: str, default: int) -> int:
    if not values:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", values[-1]):
        raise _bad(f"{name} must be a whole number from 0")
    return int(values[-1])


def _shown(name: str) -> str:
    """A client's own word, cut and without anything that could be markup or a control character."""
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name[:64])


def _bad(detail: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, detail)
