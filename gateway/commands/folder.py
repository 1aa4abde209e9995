"""The images of a folder, and those of them that a model is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from gateway.domain.errors import InputRefused, PeerError
from gateway.domain.ids import AETitle, AssociationId, InputSetId, SeriesUID, Sha256
from gateway.domain.study import Instance, Series, Study
from gateway.receive.header import read_header
from gateway.route import selection
from gateway.route.inputs import NoChoice
from gateway.route.priors import find_priors


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a model is given of a folder."""

    series: tuple[tuple[str, Series], ...]  # name of the input, empty where there is but one; the reference first
    flags: tuple[str, ...] = ()

    @property
    def reference(self) -> Series:
        return self.series[0][1]

    @property
    def input_set(self) -> InputSetId:
        several = bool(self.series[0][0])
        return selection.joint_input_set(self.series) if several else self.reference.input_set()


def read_folder(source: Path) -> tuple[list[Instance], int]:
    """The images of a folder and how many other files it has; raises InputRefused where there are none, or two of one name."""
    instances: dict[str, Instance] = {}
    skipped = 0
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        try:
            instance = _read_file(file)
        except PeerError:
            skipped += 1
            continue
        known = instances.setdefault(instance.header.sop_instance_uid, instance)
        if known.sha256 != instance.sha256:
            raise InputRefused(f"two files with SOP Instance UID {instance.header.sop_instance_uid} differ in content")
    if not instances:
        raise InputRefused(f"no DICOM file in {source}" + (f" ({skipped} other files)" if skipped else ""))
    return list(instances.values()), skipped


def _read_file(file: Path) -> Instance:
    try:
        meta = read_file_meta_info(file)
        start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
        syntax = str(meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, OSError, EOFError, ValueError) as error:
        raise PeerError("not a DICOM file") from error
    data = memoryview(file.read_bytes())[start:]
    return Instance(
        header=read_header(data, syntax),
        sha256=Sha256(hashlib.sha256(data).hexdigest()),
        size=start + len(data),
        file=str(file.resolve()),
        calling_ae=AETitle("FOLDER"),
        address="127.0.0.1",
        association_id=AssociationId(""),
        received_at=0.0,
    )


def choose_series(instances: Sequence[Instance], model: selection.Model, series_uid: str | None) -> Chosen:
    """The series that fits a model, or one for each of its inputs; raises InputRefused, which says why none does."""
    uids = {instance.header.study_uid for instance in instances}
    studies = [Study.of(uid, (item for item in instances if item.header.study_uid == uid)) for uid in sorted(uids)]
    for study in studies:
        if reason := selection.mixed_patients(study):
            raise InputRefused(reason, code="mixed_patients")
    series = [(study, item) for study in studies for item in study.series]
    if series_uid is not None:
        series = [(study, item) for study, item in series if item.uid == SeriesUID(series_uid)]
    if model.joint and series:
        return _several(studies, series, model)
    fitting = [(study, item) for study, item in series if selection.unfit(model, study, item) is None]
    if len(fitting) == 1:
        return Chosen(series=(("", fitting[0][1]),))
    if fitting:
        names = ", ".join(item.uid for _, item in fitting)
        raise InputRefused(f"{len(fitting)} series fit {model.name}: choose one with --series ({names})")
    if not series:
        raise InputRefused(f"series {series_uid} is not in the folder")
    reasons = "; ".join(f"series {item.uid}: {selection.unfit(model, study, item)}" for study, item in series)
    raise InputRefused(f"no series fits {model.name}: {reasons}", code="no_series")


def _several(held: Sequence[Study], series: Sequence[tuple[Study, Series]], model: selection.Model) -> Chosen:
    """One series for each input, the reference among ``series``; beside the study the folder may hold priors of it."""
    studies = list({study.uid: study for study, _ in series}.values())
    if model.takes_prior:
        studies = [one for one in studies if not any(one in find_priors(other, [one]).studies for other in studies)]
    if len(studies) > 1:
        raise InputRefused(f"the folder holds {len(studies)} studies, {model.name} takes one", code="no_series")
    (study,) = studies
    choice = model.choose(study, [item for of, item in series if of is study], find_priors(study, held))
    if isinstance(choice, NoChoice):
        raise InputRefused(f"{model.name}: {choice.reason}", code="no_series")
    return Chosen(series=choice.series, flags=choice.flags)
