"""Which studies of those that are held are priors of another one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.domain.prior import Moment, same_patient
from gateway.domain.study import Patient, Study


@dataclass(frozen=True, kw_only=True)
class Priors:
    """Earlier studies of a study's patient."""

    studies: tuple[Study, ...] = ()  # the newest first
    why: str = "no earlier study is looked for"  # there is none


NO_PRIORS = Priors()


def find_priors(study: Study, held: Iterable[Study]) -> Priors:
    """Those of ``held`` that are of the same patient and were certainly made before the study."""
    patients, moment = _patients(study), _moment(study)
    if not all(patient.patient_id.strip() for patient in patients):
        return Priors(why="the images have no Patient ID by which an earlier study could be found")
    if not moment.date:
        return Priors(why="the images have no Study Date, or several")
    found = [
        other
        for other in held
        if other.uid != study.uid
        and other.series
        and all(same_patient(ours, theirs) for ours in patients for theirs in _patients(other))
        and _moment(other).before(moment)
    ]
    found.sort(key=lambda other: (_moment(other).date, _moment(other).time, other.uid), reverse=True)
    return Priors(studies=tuple(found), why="no earlier study of this patient is held whole")


def _patients(study: Study) -> frozenset[Patient]:
    return frozenset(instance.header.patient for instance in study.instances)


def _moment(study: Study) -> Moment:
    """Nothing where its images do not agree."""
    dates = {instance.header.study_date for instance in study.instances}
    times = {instance.header.study_time for instance in study.instances}
    return Moment.of(*(next(iter(values)) if len(values) == 1 else "" for values in (dates, times)))
