"""The same job done again gives the same bytes, whatever kind of model did it: numbers, UIDs, dates and all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save

from gateway.domain.messages import JobOrder, to_json
from tests.support.bundles import write_bundle
from tests.support.classifier import write_classifier
from tests.support.series import axial, input_file, job_order, write_series
from tests.support.two_series import BUNDLE, write_two_series
from workers.child import Child

pytestmark = pytest.mark.usefixtures("unlimited")

VOXELS = np.random.default_rng(4).uniform(0, 90, (8, 24, 24))
VOXELS[2:5, 6:14, 4:10] = 900


def done(order: JobOrder, output: Path) -> dict[str, Any]:
    """The outcome of a job by a model that is opened anew, after others have drawn random numbers; without its times."""
    output.mkdir()
    torch.rand(int.from_bytes(output.name.encode()) % 97 + 1)
    wire = StringIO()
    Child(wire).answer(to_json(replace(order, output_dir=str(output))))
    found: dict[str, Any] = json.loads(wire.getvalue().splitlines()[-1])
    assert found.get("outcome", {}).get("status") == "complete", found
    outcome: dict[str, Any] = found["outcome"]
    del outcome["timings"]
    return outcome


def _order(tmp_path: Path, bundle: Path) -> JobOrder:
    return job_order(write_series(tmp_path / "in", VOXELS, axial(VOXELS.shape)), bundle, tmp_path / "none")


def plain(tmp_path: Path) -> JobOrder:
    return _order(tmp_path, write_bundle(tmp_path / "b"))


def with_dropout(tmp_path: Path) -> JobOrder:
    settings = {"method": "mc_dropout", "samples": 3}
    return _order(tmp_path, write_bundle(tmp_path / "b", "dropout", uncertainty=settings))


def on_changed_images(tmp_path: Path) -> JobOrder:
    return _order(tmp_path, write_bundle(tmp_path / "b", uncertainty={"method": "tta", "samples": 3}))


def ensemble(tmp_path: Path) -> JobOrder:
    bundle = write_bundle(tmp_path / "b", uncertainty={"method": "tta", "samples": 2})
    data = save({"level": np.full(1, 0.25, np.float32)})
    (bundle / "models/other.safetensors").write_bytes(data)
    manifest = yaml.safe_load((bundle / "hilum.yaml").read_text())
    member = {"file": "models/other.safetensors", "sha256": hashlib.sha256(data).hexdigest()}
    manifest |= {"ensemble": {"members": [member], "combine": "staple"}, "uncertainty": {"method": "ensemble"}}
    (bundle / "hilum.yaml").write_text(yaml.safe_dump(manifest))
    return _order(tmp_path, bundle)


def explained(tmp_path: Path) -> JobOrder:
    checked = {"steps": 4, "blocks": 4, "orders": 2, "networks": 1, "margin": 0, "alike": 1}
    settings = {"method": "shap", "samples": 4, "baseline": "minimum", "faithfulness": checked}
    return _order(tmp_path, write_classifier(tmp_path / "b", exclusive=True, calibrated=2.0, explanation=settings))


def two_series(tmp_path: Path) -> JobOrder:
    both = write_two_series(tmp_path / "in")
    named = {"t1": both.t1, "flair": both.flair}
    inputs = tuple(replace(input_file(file), input=name) for name, files in named.items() for file in files)
    return replace(job_order(both.t1, BUNDLE, tmp_path / "none"), inputs=inputs)


@pytest.mark.parametrize("make", [plain, with_dropout, on_changed_images, ensemble, explained, two_series])
def test_the_same_job_gives_the_same_bytes(tmp_path: Path, make: Callable[[Path], JobOrder]) -> None:
    """Objects by their digests and UIDs, numbers, sentences and provenance."""
    order = make(tmp_path)
    first, second = (done(order, tmp_path / name) for name in ("once", "again"))
    assert first == second
    assert len(first["objects"]) >= 4
