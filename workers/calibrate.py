"""Fits a classifier's calibration to cases whose answers are known.

    python -m workers.calibrate BUNDLE DIRECTORY

DIRECTORY/labels.csv has a row for each case: `case`, then 1 or 0 for each finding, in columns named by their code values.
Beside it lies logits.csv with the same cases and columns, or a folder of DICOM files of one series for each case; then the
bundle is run on them, locked up as for a job. Writes the file that the manifest names under `calibration.file`, which is part of
the bundle's digest, and prints what was found.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gateway.bundle.files import bundle_digest, read_manifest, resolve_bundle
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid, HilumError
from workers.fingerprint import volumes
from workers.infer.calibration import Calibration, Table, calibrate
from workers.libraries import set_up_libraries
from workers.sandbox.confine import confine
from workers.sandbox.room import Room

LABELS, LOGITS = "labels.csv", "logits.csv"


def calibration_of(bundle: Path, directory: Path, manifest: Manifest) -> Calibration:
    """Raises BundleInvalid where files are missing, do not fit together or show too little."""
    cases, truth = _table(directory / LABELS, manifest)
    if not np.isin(truth, (0, 1)).all():
        raise BundleInvalid(f"{LABELS} holds something else than 0 and 1")
    with tempfile.TemporaryDirectory() as scratch:
        source = directory / LOGITS
        if not source.is_file():
            source = Path(scratch) / LOGITS
            _locked_up(bundle, directory, cases, source)
        named, logits = _table(source, manifest)
    if len(set(cases)) < len(cases) or sorted(named) != sorted(cases):
        raise BundleInvalid(f"{LABELS} and {LOGITS} are not of the same cases, each once")
    return calibrate(logits[[named.index(case) for case in cases]], truth > 0, manifest)


def _table(file: Path, manifest: Manifest) -> tuple[list[str], Table]:
    columns = [spec.name.value for spec in manifest.output.findings]
    try:
        rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
        return [row["case"] for row in rows], np.array([[float(row[name]) for name in columns] for row in rows])
    except OSError:
        raise BundleInvalid(f"there is no {file.name} in the calibration's folder") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise BundleInvalid(f"{file.name} needs the columns case, {', '.join(columns)}, with numbers") from None


def _locked_up(bundle: Path, directory: Path, cases: list[str], target: Path) -> None:
    """The cases' logits, by a process that reaches bundle and images only."""
    child = os.fork()
    if child == 0:
        confine(Room(readable=(bundle.resolve(), directory.resolve()), writable=target.parent))
        try:
            status = _run(bundle, directory, cases, target)
        except HilumError as error:
            print(error.message, file=sys.stderr)
            status = error.exit_status or 1
        sys.stderr.flush()
        os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise BundleInvalid("the bundle could not be run on the calibration's images")


def _run(bundle: Path, directory: Path, cases: list[str], target: Path) -> int:
    set_up_libraries()
    with target.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        manifest = read_manifest(bundle)
        rows.writerow(["case", *(spec.name.value for spec in manifest.output.findings)])
        for case, logits in zip(cases, _logits(bundle, directory, cases), strict=True):
            rows.writerow([case, *logits])
    return 0


def _logits(bundle: Path, directory: Path, cases: list[str]) -> Iterator[list[float]]:
    from workers.infer.model import open_model  # here, since it takes seconds
    from workers.infer.predict import check_logits, infer_raw_and_calibrated

    model = open_model(bundle, calibrated=False)
    for case in cases:
        if Path(case).is_absolute() or ".." in Path(case).parts:
            raise BundleInvalid(f"the case {case[:40]!r} is no folder beside {LABELS}")
        found = list(volumes(directory / case, model.manifest))
        if len(found) != 1:
            raise BundleInvalid(f"the case {case[:40]!r} has {len(found)} series that fit, not one")
        numbers = infer_raw_and_calibrated(model, found[0])
        check_logits(numbers.logits, numbers.raw, model)
        yield list(numbers.logits)


def main() -> int:
    """Command line; exit status of the error where there is one."""
    parser = argparse.ArgumentParser(prog="hilum models calibrate")
    parser.add_argument("bundle")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    try:
        bundle = resolve_bundle(options.bundle, Path.cwd())
        manifest = read_manifest(bundle)
        if manifest.calibration is None:
            raise BundleInvalid(
                f"{manifest.name} asks for no calibration: write `calibration: {{file: calibration.json}}`"
            )
        found = calibration_of(bundle, options.directory, manifest)
    except HilumError as error:
        print(error.message, file=sys.stderr)
        return error.exit_status
    target = bundle / manifest.calibration.file
    partial = target.with_suffix(".partial")
    partial.write_text(found.to_json(), encoding="utf-8")
    partial.replace(target)
    said = {
        "file": str(target),
        "calibration": found.words,
        "cases": found.cases,
        "expected_calibration_error": {"before": found.error_before, "after": found.error_after},
        "digest": bundle_digest(bundle),
    }
    print(json.dumps(said, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
