"""Makes the fingerprint of a model's reference images.

    python -m workers.fingerprint BUNDLE DIRECTORY

DIRECTORY holds DICOM files of one or more series, at any depth. Writes the file that the manifest names under
`input.envelope.fingerprint`, else `fingerprint.json`, into the bundle, and prints what is in it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from gateway.bundle.files import read_manifest, resolve_bundle
from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid, HilumError
from gateway.domain.messages import InputFile, JobOrder
from workers.libraries import set_up_libraries
from workers.load.envelope import take_fingerprint
from workers.load.part10 import dataset_start
from workers.load.series import load
from workers.load.volume import Volume

FILE = "fingerprint.json"


def volumes(directory: Path, manifest: Manifest) -> Iterator[Volume]:
    """Every series of a folder that the model takes; one that it does not take is named on standard error."""
    series: dict[str, list[InputFile]] = defaultdict(list)
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        try:
            header = dcmread(file, specific_tags=["SeriesInstanceUID", "SOPInstanceUID"])
            data = file.read_bytes()
            sha256 = hashlib.sha256(memoryview(data)[dataset_start(data) :]).hexdigest()
            found = InputFile(sop_instance_uid=str(header.SOPInstanceUID), path=str(file), sha256=sha256)
            series[str(header.SeriesInstanceUID)].append(found)
        except (InvalidDicomError, AttributeError, OSError):
            continue  # other files may lie beside images
    for uid, inputs in series.items():
        order = JobOrder(job_id=uid, bundle="", inputs=tuple(inputs), output_dir="", content_time=0.0)
        try:
            yield load(order, manifest)
        except HilumError as error:
            print(f"series {uid} is left out: {error.message}", file=sys.stderr)


def main() -> int:
    """Command line; exit status 2 where no series fits."""
    parser = argparse.ArgumentParser(prog="hilum models fingerprint")
    parser.add_argument("bundle")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    set_up_libraries()
    try:
        bundle = resolve_bundle(options.bundle, Path.cwd())
        manifest = read_manifest(bundle)
        found = list(volumes(options.directory, manifest))
        if not found:
            raise BundleInvalid(f"no series in {options.directory} is one that {manifest.name} takes")
    except HilumError as error:
        print(error.message, file=sys.stderr)
        return error.exit_status
    fingerprint = take_fingerprint(found)
    envelope = manifest.input.envelope
    target = bundle / (envelope.fingerprint if envelope else FILE)
    target.write_text(fingerprint.to_json(), encoding="utf-8")
    print(json.dumps({"file": str(target), "images": fingerprint.images, "figures": fingerprint.figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
