"""The ledger's part for DICOMweb: what is held, to search and to retrieve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, func, literal, or_, select, union_all, update

from gateway.domain.archive import SEARCHABLE, Condition, Held, HeldSeries, Search
from gateway.domain.ids import InstanceUID, SeriesUID, StudyUID
from gateway.domain.ports import Clock
from gateway.store import rows, schema
from gateway.store.engine import CASEFOLD, reading, writing
from gateway.store.indexing import NOT_OURS, Indexing, shown, to_held

_INSTANCES, _SERIES, _RESULTS = schema.instances, schema.series_index, schema.result_index
_ASSOCIATIONS = schema.associations

_VISIBLE = (_SERIES.c.job_id == "") | shown(_SERIES.c.job_id)
_NAMES = ("patient_name", "referring_physician")
_OF_INSTANCE = frozenset(SEARCHABLE["instance"])


class Archive(Indexing):
    """Implements `gateway.domain.archive.Archive`."""

    engine: Any
    clock: Clock

    def find_studies(self, search: Search) -> tuple[Sequence[Sequence[HeldSeries]], int]:
        """Each study as its series, newest study date first; and how many studies fit in all."""
        self.refresh_index()
        fitting = select(_SERIES.c.study_uid).where(_VISIBLE, *self._conditions(search.conditions)).distinct()
        ordered = (
            select(_SERIES.c.study_uid)
            .where(_VISIBLE, _SERIES.c.study_uid.in_(fitting))
            .group_by(_SERIES.c.study_uid)
            .order_by(func.max(_SERIES.c.study_date).desc(), _SERIES.c.study_uid)
            .limit(search.limit)
            .offset(search.offset)
        )
        with reading(self.engine) as connection:
            total = connection.execute(select(func.count()).select_from(fitting.subquery())).scalar_one()
            page = list(connection.execute(ordered).scalars())
            found = connection.execute(_ordered_series().where(_SERIES.c.study_uid.in_(page))).all()
        by_study: dict[str, list[HeldSeries]] = {uid: [] for uid in page}
        for row in found:
            by_study[row.study_uid].append(_to_series(row))
        return list(by_study.values()), total

    def find_series(self, search: Search) -> tuple[Sequence[HeldSeries], int]:
        """Series; and how many fit in all."""
        self.refresh_index()
        fitting = _ordered_series().where(*self._conditions(search.conditions))
        with reading(self.engine) as connection:
            total = connection.execute(select(func.count()).select_from(fitting.subquery())).scalar_one()
            found = connection.execute(fitting.limit(search.limit).offset(search.offset)).all()
        return [_to_series(row) for row in found], total

    def find_instances(self, search: Search) -> tuple[Sequence[Held], int]:
        """Instances; and how many fit in all."""
        self.refresh_index()
        above = [one for one in search.conditions if one.field not in _OF_INSTANCE]
        own = [one for one in search.conditions if one.field in _OF_INSTANCE]
        fitting = select(_SERIES.c.series_uid).where(_VISIBLE, *self._conditions(above))

        def where(table: Any) -> list[ColumnElement[bool]]:
            uids = [table.c.study_uid.in_(one.values) for one in above if one.field == "study_uid"]
            return [
                table.c.series_uid.in_(fitting),
                *uids,
                *(self._match(_column(table, one.field), one) for one in own),
            ]

        everything = _everything(where(_INSTANCES), where(_RESULTS)).subquery()
        ordered = select(everything).order_by(everything.c.series_uid, everything.c.sop_instance_uid)
        with reading(self.engine) as connection:
            total = connection.execute(select(func.count()).select_from(everything)).scalar_one()
            found = connection.execute(ordered.limit(search.limit).offset(search.offset)).all()
        return [to_held(row, row.job_id) for row in found], total

    def held(
        self, study: StudyUID, series: SeriesUID | None = None, instance: InstanceUID | None = None
    ) -> Sequence[Held]:
        """What there is of a study, of one of its series, or of one instance; nothing where it is not held."""

        def where(table: Any) -> list[ColumnElement[bool]]:
            wanted = {"study_uid": study, "series_uid": series, "sop_instance_uid": instance}
            return [table.c[name] == uid for name, uid in wanted.items() if uid is not None]

        with reading(self.engine) as connection:
            found = connection.execute(_everything(where(_INSTANCES), where(_RESULTS))).all()
        held = [to_held(row, row.job_id) for row in found]
        return sorted(held, key=lambda one: (one.header.series_uid, one.header.sop_instance_uid))

    def close_lost(self, address: str) -> int:
        """Ends, as lost, what a process that is gone had open; `address` is how the senders' begin. Returns how many."""
        with writing(self.engine) as connection:
            ended = connection.execute(
                update(_ASSOCIATIONS)
                .where(_ASSOCIATIONS.c.address.startswith(address), _ASSOCIATIONS.c.closed_at.is_(None))
                .values(closed_at=self.clock.now(), how="lost")
            )
        return int(ended.rowcount)

    def _conditions(self, conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
        return [self._condition(one) for one in conditions]

    def _condition(self, one: Condition) -> ColumnElement[bool]:
        if one.field != "modalities_in_study":
            return self._match(_SERIES.c[one.field], one)
        beside = _SERIES.alias()
        visible = (beside.c.job_id == "") | shown(beside.c.job_id)
        has_it = select(beside.c.study_uid).where(visible, self._match(beside.c.modality, one))
        return _SERIES.c.study_uid.in_(has_it)

    def _match(self, column: Any, one: Condition) -> ColumnElement[bool]:
        if one.low or one.high:
            ends = [column >= one.low] if one.low else []
            # A time that is more precise than the end of the range still lies in it.
            return and_(column != "", *ends, *([column <= one.high + "~"] if one.high else []))
        if one.field in _NAMES:
            return or_(*(_match_name(self._fold, column, value, one.wildcard) for value in one.values))
        if not one.wildcard:
            return column.in_(one.values)  # type: ignore[no-any-return]
        return or_(*(self._like(column, value) for value in one.values))

    def _fold(self, text: Any) -> Any:
        """A text without regard to case, as an expression; the database does the same with both sides of a comparison."""
        return getattr(func, CASEFOLD)(text) if self.engine.dialect.name == "sqlite" else func.lower(text)

    def _like(self, column: Any, value: str) -> ColumnElement[bool]:
        """Wildcard matching with regard to case, which SQLite's LIKE does not have."""
        if self.engine.dialect.name == "sqlite":
            return func.glob(value.replace("[", "[[]"), column) == 1
        return column.like(_pattern(value), escape="\\")  # type: ignore[no-any-return]


def _match_name(fold: Callable[[Any], Any], column: Any, value: str, wildcard: bool) -> ColumnElement[bool]:
    """A person's name, without regard to case (PS3.4 C.2.2.2.4): all of it, or one of its groups."""
    text, name = value.rstrip("^"), fold(column)
    pattern = _pattern(text) if wildcard else _escape(text)
    groups = [pattern, f"{pattern}=%", f"%={pattern}", f"%={pattern}=%"]
    if not wildcard:
        groups += [f"{pattern}^", f"{pattern}^^", f"{pattern}^^^"]  # empty components at the end mean nothing
    return or_(*(name.like(fold(group), escape="\\") for group in groups))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _pattern(value: str) -> str:
    return _escape(value).replace("*", "%").replace("?", "_")


def _column(table: Any, field: str) -> Any:
    return table.c[field] if field in table.c else table.c.header[field].as_string()


def _ordered_series() -> Select[Any]:
    return select(_SERIES).where(_VISIBLE).order_by(_SERIES.c.study_uid, _SERIES.c.job_id, _SERIES.c.series_uid)


def _everything(
    of_instances: Sequence[ColumnElement[bool]], of_results: Sequence[ColumnElement[bool]]
) -> CompoundSelect[Any]:
    names = ("study_uid", "series_uid", "sop_instance_uid", "sha256", "size", "file", "header")
    received = select(*(_INSTANCES.c[name] for name in names), literal("").label("job_id")).where(
        NOT_OURS, *of_instances
    )
    made = select(*(_RESULTS.c[name] for name in names), _RESULTS.c.job_id).where(shown(_RESULTS.c.job_id), *of_results)
    return union_all(received, made)


def _to_series(row: Any) -> HeldSeries:
    return HeldSeries(
        header=rows.to_header(row.header),
        instances=row.instances,
        sop_classes=tuple(row.sop_classes),
        file=row.file,
    )
