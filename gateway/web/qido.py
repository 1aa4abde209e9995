"""QIDO-RS (PS3.18 10.6): studies, series and instances that are held, sources and results alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydicom.datadict import dictionary_VR
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gateway.domain.archive import Held, HeldSeries
from gateway.domain.study import Header
from gateway.web.accept import asked, chosen
from gateway.web.holdings import Holdings, instance_url
from gateway.web.problem import Refused
from gateway.web.query import Query, of_path, parse
from gateway.web.wado import JSON_TYPES

_Json = dict[str, Any]

# What a row shows of the file beside the index, by level.
_INSTANCE_TAGS = (0x00200013, 0x00280100, 0x00280008)  # Instance Number, Bits Allocated, Number of Frames
_SERIES_TAGS = (0x00400244, 0x00400245, 0x00400275)  # Performed Procedure Step Start Date, Time, Request Attributes
_ABOVE_INSTANCE = range(0x00080000, 0x00280000)  # where attributes of patient, study and series are


class Qido:
    """The read side's searches."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings

    async def studies(self, request: Request, base: str) -> Response:
        """Studies."""
        return await run_in_threadpool(self._studies, request, base)

    async def series(self, request: Request, base: str, study: str = "") -> Response:
        """Series, of one study or of all."""
        return await run_in_threadpool(self._series, request, base, study)

    async def instances(self, request: Request, base: str, study: str = "", series: str = "") -> Response:
        """Instances, of one series, of one study or of all."""
        return await run_in_threadpool(self._instances, request, base, study, series)

    def _studies(self, request: Request, base: str) -> Response:
        kind, query = _asked(request, "study")
        self._holdings.catch_up()
        found, total = self._holdings.archive.find_studies(query.search)
        rows = [self._study(series, query, base) for series in found]
        return _answer(rows, kind, query, total)

    def _series(self, request: Request, base: str, study: str) -> Response:
        kind, query = _asked(request, "series", study_uid=study)
        if study:
            self._holdings.find(study)
        self._holdings.catch_up()
        found, total = self._holdings.archive.find_series(query.search)
        rows = [self._one_series(one, query, base, with_study=not study) for one in found]
        return _answer(rows, kind, query, total)

    def _instances(self, request: Request, base: str, study: str, series: str) -> Response:
        kind, query = _asked(request, "instance", study_uid=study, series_uid=series)
        if study:
            self._holdings.find(study, series)
        self._holdings.catch_up()
        found, total = self._holdings.archive.find_instances(query.search)
        rows = [self._one_instance(one, query, base, with_study=not study, with_series=not series) for one in found]
        return _answer(rows, kind, query, total)

    def _study(self, series: Sequence[HeldSeries], query: Query, base: str) -> _Json:
        header = series[0].header
        row = _study_attributes(header, base) | {
            "00080061": _element("CS", *sorted({one.header.modality for one in series if one.header.modality})),
            "00080062": _element("UI", *sorted({sop for one in series for sop in one.sop_classes})),
            "00201206": _element("IS", len(series)),
            "00201208": _element("IS", sum(one.instances for one in series)),
        }
        return self._with_file(row, series[0], query, base)

    def _one_series(self, one: HeldSeries, query: Query, base: str, *, with_study: bool) -> _Json:
        row = _series_attributes(one.header, base) | {"00201209": _element("IS", one.instances)}
        if with_study:
            row = _study_attributes(one.header, base) | row
        return self._with_file(row, one, query, base, _SERIES_TAGS)

    def _with_file(self, row: _Json, one: HeldSeries, query: Query, base: str, always: Sequence[int] = ()) -> _Json:
        """Adds what was asked for and the index does not have, from one of the files."""
        if not always and not query.everything and all(f"{tag:08X}" in row for tag in query.tags):
            return row
        held = Held(header=one.header, file=one.file, size=0, sha256=one.file)
        return _merged(self._holdings.metadata(held, base), row, query, lambda tag: tag in _ABOVE_INSTANCE, always)

    def _one_instance(self, one: Held, query: Query, base: str, *, with_study: bool, with_series: bool) -> _Json:
        header = one.header
        row = _instance_attributes(header, instance_url(one, base))
        if with_series:
            row = _series_attributes(header, base) | row
        if with_study:
            row = _study_attributes(header, base) | row
        return _merged(self._holdings.metadata(one, base), row, query, lambda _tag: True, _INSTANCE_TAGS)


def _asked(request: Request, level: str, **uids: str) -> tuple[str, Query]:
    kind = chosen(asked(request.headers.getlist("accept"), request.query_params), JSON_TYPES)
    query = parse(level, request.query_params.multi_items(), of_path(**uids))
    if kind is None:
        raise Refused(HTTPStatus.NOT_ACCEPTABLE, f"results are given as {JSON_TYPES[0]}")
    return kind, query


def _answer(rows: Iterable[_Json], kind: str, query: Query, total: int) -> Response:
    rows = [dict(sorted(row.items())) for row in rows]
    warnings = list(query.warnings)
    if (remaining := total - query.search.offset - len(rows)) > 0:
        warnings.append(f"There are {remaining} additional results that can be requested.")
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    if warnings:
        headers["Warning"] = ", ".join(f'299 hilum "{text}"' for text in warnings)
    return Response(json.dumps(rows, separators=(",", ":"), ensure_ascii=False), headers=headers, media_type=kind)


def _merged(text: str, row: _Json, query: Query, belongs: Callable[[int], bool], always: Sequence[int] = ()) -> _Json:
    metadata: Mapping[str, Any] = json.loads(text)
    wanted = {f"{tag:08X}" for tag in (*query.tags, *always)}
    found = {
        key: value
        for key, value in metadata.items()
        if key in wanted or (query.everything and belongs(int(key, 16)) and "BulkDataURI" not in value)
    }
    for tag in query.tags:  # asked for, and not there: empty, so that a client sees that it was understood
        found.setdefault(f"{tag:08X}", {"vr": _vr(tag)})
    return found | row


def _vr(tag: int) -> str:
    try:
        return dictionary_VR(tag).split(" ", maxsplit=1)[0]
    except KeyError:
        return "UN"


def _study_attributes(header: Header, base: str) -> _Json:
    patient = header.patient
    return {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080020": _element("DA", header.study_date),
        "00080030": _element("TM", header.study_time),
        "00080050": _element("SH", header.accession_number),
        "00080056": _element("CS", "ONLINE"),
        "00080090": _name(header.referring_physician),
        "00081030": _element("LO", header.study_description),
        "00081190": _element("UR", f"{base}/studies/{header.study_uid}"),
        "00100010": _name(patient.name),
        "00100020": _element("LO", patient.patient_id),
        "00100021": _element("LO", patient.issuer),
        "00100030": _element("DA", patient.birth_date),
        "00100040": _element("CS", patient.sex),
        "0020000D": _element("UI", header.study_uid),
        "00200010": _element("SH", header.study_id),
    }


def _series_attributes(header: Header, base: str) -> _Json:
    return {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080056": _element("CS", "ONLINE"),
        "00080060": _element("CS", header.modality),
        "0008103E": _element("LO", header.series_description),
        "00081190": _element("UR", f"{base}/studies/{header.study_uid}/series/{header.series_uid}"),
        "00180015": _element("CS", header.body_part),
        "0020000D": _element("UI", header.study_uid),
        "0020000E": _element("UI", header.series_uid),
        "00200011": _number(header.series_number),
    }


def _instance_attributes(header: Header, url: str) -> _Json:
    return {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080016": _element("UI", header.sop_class_uid),
        "00080018": _element("UI", header.sop_instance_uid),
        "00080056": _element("CS", "ONLINE"),
        "00081190": _element("UR", url),
        "00083002": _element("UI", header.transfer_syntax_uid),
        "0020000D": _element("UI", header.study_uid),
        "0020000E": _element("UI", header.series_uid),
        **(
            {"00280010": _element("US", header.rows), "00280011": _element("US", header.columns)} if header.rows else {}
        ),
    }


def _element(vr: str, *values: Any) -> _Json:
    there = [value for value in values if value != ""]
    return {"vr": vr, "Value": there} if there else {"vr": vr}


def _number(text: str) -> _Json:
    try:
        return _element("IS", int(text))
    except ValueError:
        return {"vr": "IS"}


def _name(text: str) -> _Json:
    groups = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False))
    return _element("PN", *([{key: value for key, value in groups.items() if value}] if text else []))
