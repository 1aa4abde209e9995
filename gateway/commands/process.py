"""`hilum process`: one study from a folder, no network. Writes the result objects, `result.json` and `oru.hl7`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from gateway.domain.errors import ConfigurationError, InputRefused, MessageInvalid, ModelCrashed, PeerError
from gateway.domain.ids import AETitle, AssociationId, InputSetId, JobId, SeriesUID, Sha256
from gateway.domain.job import Edition, ReportKind
from gateway.domain.messages import InputFile, JobOrder, Outcome, from_json, to_json
from gateway.domain.study import Instance, Series, Study
from gateway.manifest import bundle_digest, check_weights, read_manifest
from gateway.receive.header import read_header
from gateway.report.content import ReportContent
from gateway.report.oru import build
from gateway.report.settings import Hl7Destination
from gateway.route import selection
from gateway.route.inputs import NoChoice, choose
from gateway.submit.jobkey import job_key

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Processed:
    """What came of it."""

    outcome: Outcome
    files: tuple[Path, ...]
    skipped: int  # files in the folder that are not DICOM


def process(
    source: Path,
    bundle: Path,
    output: Path,
    *,
    series_uid: str | None = None,
    progress: Progress = lambda _: None,
    compare: bool = False,
) -> Processed:
    """Runs a model on the series of a folder that fits it; raises HilumError. Nothing is left behind by a failure.

    With ``compare`` a model that was made faster must agree with itself as it was.
    """
    if not source.is_dir():
        raise ConfigurationError(f"{source} is not a folder")
    model = _model(bundle)
    progress("reading headers")
    instances, skipped = _read_folder(source)
    chosen = _choose(instances, model, series_uid)
    series = chosen.reference
    job_id = job_key(series.first.study_uid, series.uid, chosen.input_set, model.digest)
    output.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".hilum-", dir=output))
    try:
        order = dataclasses.replace(_order(job_id, bundle, chosen, scratch), compare=compare)
        outcome = _run(order, progress)
        if outcome.status != "complete":
            raise InputRefused(f"{outcome.reason_code}: {outcome.reason}", code=outcome.reason_code)
        files = _write(outcome, order, series, scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Processed(outcome=outcome, files=files, skipped=skipped)


def _read_folder(source: Path) -> tuple[list[Instance], int]:
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


def _model(bundle: Path) -> selection.Model:
    manifest = read_manifest(bundle)
    check_weights(bundle, manifest)
    digest = Sha256(bundle_digest(bundle))
    return selection.make_model(manifest.name, manifest, digest, "input.select of the manifest")


@dataclass(frozen=True, kw_only=True)
class _Chosen:
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


def _choose(instances: Sequence[Instance], model: selection.Model, series_uid: str | None) -> _Chosen:
    uids = {instance.header.study_uid for instance in instances}
    studies = [Study.of(uid, (item for item in instances if item.header.study_uid == uid)) for uid in sorted(uids)]
    for study in studies:
        if reason := selection.mixed_patients(study):
            raise InputRefused(reason, code="mixed_patients")
    series = [(study, item) for study in studies for item in study.series]
    if series_uid is not None:
        series = [(study, item) for study, item in series if item.uid == SeriesUID(series_uid)]
    if model.manifest.inputs and series:
        return _choose_several(series, model)
    fitting = [(study, item) for study, item in series if selection.unfit(model, study, item) is None]
    if len(fitting) == 1:
        return _Chosen(series=(("", fitting[0][1]),))
    if fitting:
        names = ", ".join(item.uid for _, item in fitting)
        raise InputRefused(f"{len(fitting)} series fit {model.name}: choose one with --series ({names})")
    if not series:
        raise InputRefused(f"series {series_uid} is not in the folder")
    reasons = "; ".join(f"series {item.uid}: {selection.unfit(model, study, item)}" for study, item in series)
    raise InputRefused(f"no series fits {model.name}: {reasons}", code="no_series")


def _choose_several(series: Sequence[tuple[Study, Series]], model: selection.Model) -> _Chosen:
    """One series for each input, the reference among ``series``."""
    studies = {study.uid: study for study, _ in series}
    if len(studies) > 1:
        raise InputRefused(f"the folder holds {len(studies)} studies, {model.name} takes one", code="no_series")
    (study,) = studies.values()
    choice = choose(model.wanted, study, [item for _, item in series])
    if isinstance(choice, NoChoice):
        raise InputRefused(f"{model.name}: {choice.reason}", code="no_series")
    return _Chosen(series=choice.series, flags=choice.flags)


def _order(job_id: str, bundle: Path, chosen: _Chosen, scratch: Path) -> JobOrder:
    inputs = tuple(
        InputFile(sop_instance_uid=item.header.sop_instance_uid, path=item.file, sha256=item.sha256, input=name)
        for name, series in chosen.series
        for item in series.instances
    )
    return JobOrder(
        job_id=job_id,
        bundle=str(bundle.resolve()),
        inputs=inputs,
        output_dir=str(scratch),
        content_time=time.time(),
        flags=chosen.flags,
    )


def _run(order: JobOrder, progress: Progress) -> Outcome:
    """Has a worker's process do the job, as `hilum serve` would."""
    child = subprocess.Popen(
        [sys.executable, "-m", "workers.run_once"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdin and child.stdout and child.stderr  # noqa: S101
    child.stdin.write(to_json(order))
    child.stdin.close()
    last = ""
    for line in child.stderr:
        last = _follow(line, progress) or last
    answer = child.stdout.read()
    child.wait()
    try:
        return from_json(Outcome, answer)
    except ValueError:
        raise ModelCrashed(_error(answer) or f"the worker ended with status {child.returncode}: {last}") from None


def _follow(line: str, progress: Progress) -> str:
    try:
        progress(str(json.loads(line)["stage"]))
    except (ValueError, KeyError, TypeError):
        return line.strip()
    return ""


def _error(answer: str) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _write(outcome: Outcome, order: JobOrder, series: Series, scratch: Path, output: Path) -> tuple[Path, ...]:
    profile = Hl7Destination(kind="hl7", host="127.0.0.1", port=2575)
    content = ReportContent(
        outcome=outcome,
        source=series.first,
        control_id=order.job_id[:20],
        edition=Edition(job_id=JobId(order.job_id), number=1, kind=ReportKind.PRELIMINARY, at=order.content_time),
        intended_use=read_manifest(Path(order.bundle)).intended_use,
    )
    names = [item.file for item in outcome.objects] + ["result.json"]
    try:
        (scratch / "oru.hl7").write_bytes(build(content, profile))
        names.append("oru.hl7")
    except MessageInvalid:
        pass  # anonymised images have no Patient ID to write a message about; the objects stand without it
    result: dict[str, Any] = {**dataclasses.asdict(outcome), "study_uid": series.first.study_uid}
    (scratch / "result.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return tuple((scratch / name).replace(output / name) for name in names)
