"""`hilum process`: one study from a folder, no network. Writes the result objects, `result.json` and `oru.hl7`.

A model's process needs seconds to load its libraries. So it is started first, and what this module needs for anything else
is imported while it does.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gateway.bundle.files import bundle_digest, check_weights, read_manifest
from gateway.bundle.manifest import Manifest
from gateway.commands.console import console
from gateway.domain.errors import ConfigurationError, InputRefused, MessageInvalid, ModelCrashed
from gateway.domain.ids import JobId, Sha256
from gateway.domain.job import Edition, ReportKind
from gateway.domain.messages import InputFile, JobOrder, Outcome, PartBundle, from_json, to_json

if TYPE_CHECKING:
    from gateway.commands.folder import Chosen
    from gateway.domain.study import Series
    from gateway.route.selection import Model

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
    known: Iterable[Path] = (),
) -> Processed:
    """Runs a model on the series of a folder that fits it; raises HilumError. Nothing is left behind by a failure.

    With ``compare`` a model that was made faster must agree with itself as it was. Parts of a fusion are among the ``known``
    bundles.
    """
    if not source.is_dir():
        raise ConfigurationError(f"{source} is not a folder")
    if output.exists() and not output.is_dir():
        raise ConfigurationError(f"{output} is not a folder")
    manifest = read_manifest(bundle)
    check_weights(bundle, manifest)
    parts = _parts(manifest, known)
    with tempfile.TemporaryDirectory(prefix=".hilum-", dir=_existing(output)) as name:
        desk = Path(name).resolve()
        with _started(bundle, desk, parts) as worker:
            from gateway.commands.folder import choose_series, read_folder
            from gateway.submit.jobkey import job_key

            progress("reading headers")
            instances, skipped = read_folder(source)
            model = _model(bundle, parts)
            chosen = choose_series(instances, model, series_uid)
            series = chosen.reference
            job_id = job_key(series.first.study_uid, series.uid, chosen.input_set, model.digest)
            order = dataclasses.replace(_order(job_id, bundle, chosen, desk), compare=compare, parts=_named(parts))
            outcome = worker.run(order, progress)
            if outcome.status != "complete":
                raise InputRefused(f"{outcome.reason_code}: {outcome.reason}", code=outcome.reason_code)
        files = _write(outcome, order, series, output)
    return Processed(outcome=outcome, files=files, skipped=skipped)


def show_processed(done: Processed, as_json: bool) -> None:
    """Says what was made."""
    outcome = done.outcome
    if as_json:
        made = {**dataclasses.asdict(outcome), "files": [str(file) for file in done.files], "skipped": done.skipped}
        print(json.dumps(made, indent=2, ensure_ascii=False, default=str))
        return
    out = console()
    out.print(f"[bold]{outcome.model.name} {outcome.model.version}[/bold] on {outcome.source_instances} instances")
    labels = {one.number: f"{one.label}, " for one in outcome.findings}
    for item in outcome.measurements:
        out.print(f"  {labels.get(item.finding or 0, '')}{item.name.meaning}: {item.value:.1f} {item.unit.value}")
    for flag in outcome.flags:
        out.print(f"  flagged: {flag}", markup=False)
    for file in done.files:
        out.print(f"  wrote {file}", markup=False)
    if done.skipped:
        out.print(f"  {done.skipped} files are not DICOM and were left out")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already: on the same file system, in all likelihood."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def _parts(manifest: Manifest, known: Iterable[Path]) -> dict[str, Path]:
    """Where the parts of a fusion are, and that they go together; none of another model."""
    if manifest.fusion is None:
        return {}
    from gateway.bundle.fused import check_parts, find_parts

    parts = {name: path.resolve() for name, path in find_parts(manifest, known).items()}
    check_parts(manifest, {name: read_manifest(path) for name, path in parts.items()})
    for path in parts.values():
        check_weights(path, read_manifest(path))
    return parts


def _named(parts: Mapping[str, Path]) -> tuple[PartBundle, ...]:
    return tuple(PartBundle(name=name, bundle=str(path)) for name, path in parts.items())


def _model(bundle: Path, parts: Mapping[str, Path]) -> Model:
    from gateway.route import selection

    manifest, digest = read_manifest(bundle), Sha256(bundle_digest(bundle))
    model = selection.make_model(manifest.name, manifest, digest, "input.select of the manifest")
    return selection.with_parts(model, {name: _model(path, {}) for name, path in parts.items()})


def _order(job_id: str, bundle: Path, chosen: Chosen, desk: Path) -> JobOrder:
    inputs = tuple(
        InputFile(sop_instance_uid=item.header.sop_instance_uid, path=item.file, sha256=item.sha256, input=name)
        for name, series in chosen.series
        for item in series.instances
    )
    return JobOrder(
        job_id=job_id,
        bundle=str(bundle.resolve()),
        inputs=inputs,
        output_dir=str(desk / "out" / job_id),
        content_time=time.time(),
        flags=chosen.flags,
    )


@contextmanager
def _started(bundle: Path, desk: Path, parts: Mapping[str, Path]) -> Iterator[_Worker]:
    """A worker's process that does one job as `hilum serve` would; it ends with the block, whatever it is doing."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.run_once", str(bundle.resolve()), str(desk), *map(str, parts.values())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        try:
            yield _Worker(process, said)
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                assert pipe  # noqa: S101
                pipe.close()
            process.wait()


class _Worker:
    def __init__(self, process: subprocess.Popen[str], said: IO[str]) -> None:
        self._process, self._said = process, said

    def run(self, order: JobOrder, progress: Progress) -> Outcome:
        assert self._process.stdin and self._process.stdout  # noqa: S101
        try:
            self._process.stdin.write(to_json(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it says instead is read below
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if "outcome" in message:
                return from_json(Outcome, json.dumps(message["outcome"]))
            if "error" in message:
                raise ModelCrashed(message["error"])
            progress(str(message["stage"]))
        raise ModelCrashed(f"the worker ended with status {self._process.wait()}: {self._last_words()}")

    def _last_words(self) -> str:
        self._said.seek(0)
        return (self._said.read().splitlines() or [""])[-1].strip()


def _write(outcome: Outcome, order: JobOrder, series: Series, output: Path) -> tuple[Path, ...]:
    from gateway.report.content import ReportContent
    from gateway.report.oru import build
    from gateway.report.settings import Hl7Destination

    made = Path(order.output_dir)
    content = ReportContent(
        outcome=outcome,
        source=series.first,
        control_id=order.job_id[:20],
        edition=Edition(job_id=JobId(order.job_id), number=1, kind=ReportKind.PRELIMINARY, at=order.content_time),
        intended_use=read_manifest(Path(order.bundle)).intended_use,
    )
    names = [item.file for item in outcome.objects] + ["result.json"]
    try:
        (made / "oru.hl7").write_bytes(build(content, Hl7Destination(kind="hl7", host="127.0.0.1", port=2575)))
        names.append("oru.hl7")
    except MessageInvalid:
        pass  # anonymised images have no Patient ID to write a message about; the objects stand without it
    result: dict[str, Any] = {**dataclasses.asdict(outcome), "study_uid": series.first.study_uid}
    (made / "result.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    output.mkdir(parents=True, exist_ok=True)
    return tuple((made / name).replace(output / name) for name in names)
