"""Builds and saves one segmentation, as one of the peers; prints seconds and peak memory as JSON.

python -m tests.benchmarks.seg_peers PEER FOLDER
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread

from gateway.bundle.manifest import Manifest
from tests.support.result_set import IDENTITY, code, manifest
from tests.support.series import job_order
from workers.encode.objects import encode
from workers.load.volume import Volume

ORGANS = 100


def organs() -> list[dict[str, object]]:
    """As many segments as a whole-body model has."""
    return [
        {
            "number": number,
            "label": f"Organ {number}",
            "category": code("123037004", "SCT", "Anatomical Structure"),
            "type": code("113343008", "SCT", "Organ"),
            "cielab": (50.0, float(number % 100), float(-number % 100)),
        }
        for number in range(1, ORGANS + 1)
    ]


def contract() -> Manifest:
    """Their manifest; nothing is measured."""
    return manifest(output={"kind": "segmentation", "segments": organs(), "measurements": []})


def hilum(folder: Path) -> Callable[[], object]:
    """The product's own way, digest and file included."""
    files = sorted((folder / "source").iterdir())
    headers = sorted(
        (dcmread(file, stop_before_pixels=True) for file in files), key=lambda h: h.ImagePositionPatient[2]
    )
    labels, affine = np.load(folder / "labels.npy"), np.load(folder / "affine.npy")
    voxels = np.broadcast_to(np.float32(0), labels.shape)
    volume = Volume(voxels=voxels, affine=affine, headers=tuple(headers))
    order = job_order(files, folder, folder / "hilum")
    return lambda: encode(volume, labels, (), contract(), IDENTITY, order, only=["seg"])


def highdicom(folder: Path) -> Callable[[], object]:
    """highdicom's Segmentation, from the same images and labels."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes

    files = sorted((folder / "source").iterdir())
    images = sorted((dcmread(file, stop_before_pixels=True) for file in files), key=lambda h: h.ImagePositionPatient[2])
    labels = np.load(folder / "labels.npy")
    algorithm = AlgorithmIdentificationSequence(name="x", family=codes.DCM.ArtificialIntelligence, version="1")

    def build() -> None:
        described = [
            SegmentDescription(
                segment_number=number,
                segment_label=f"Organ {number}",
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Organ,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
            )
            for number in range(1, ORGANS + 1)
        ]
        Segmentation(
            images, labels, "BINARY", described, "1.2.3.4", 1, "1.2.3.5", 1, "maker", "model", "1", "1"
        ).save_as(folder / "highdicom.dcm")

    return build


def dcmqi(folder: Path) -> Callable[[], object]:
    """itkimage2segimage, from NIfTI as its users have it."""
    segments = [
        {
            "labelID": organ["number"],
            "SegmentDescription": organ["label"],
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "x",
            "SegmentedPropertyCategoryCodeSequence": _code(organ["category"]),
            "SegmentedPropertyTypeCodeSequence": _code(organ["type"]),
        }
        for organ in organs()
    ]
    described = {"ContentCreatorName": "x", "SeriesNumber": "1", "InstanceNumber": "1", "segmentAttributes": [segments]}
    (folder / "dcmqi.json").write_text(json.dumps(described))
    program = Path(sys.executable).parent / "itkimage2segimage"
    command = [
        str(program), "--inputImageList", str(folder / "labels.nii"), "--inputDICOMDirectory", str(folder / "source"),
        "--inputMetadata", str(folder / "dcmqi.json"), "--outputDICOM", str(folder / "dcmqi.dcm"), "--skip",
    ]  # fmt: skip
    return lambda: subprocess.run(command, check=True, capture_output=True)


def _code(found: object) -> dict[str, str]:
    assert isinstance(found, dict)
    return {
        "CodeValue": found["value"],
        "CodingSchemeDesignator": found["scheme"],
        "CodeMeaning": found["meaning"],
    }


PEERS = {"hilum": hilum, "highdicom": highdicom, "dcmqi": dcmqi}


def main() -> None:
    """Command line."""
    build = PEERS[sys.argv[1]](Path(sys.argv[2]))
    started = time.perf_counter()
    build()
    seconds = time.perf_counter() - started
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"seconds": seconds, "mib": max(own, child) / 1024}))


if __name__ == "__main__":
    main()
