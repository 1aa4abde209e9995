"""Answers that are none: each is held back with its reason, wherever in a job the model gives it, and no object is written."""

from __future__ import annotations

import hashlib
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

from gateway.domain.messages import to_json
from tests.support.bundles import write_bundle
from tests.support.classifier import write_classifier
from tests.support.series import axial, job_order, write_series
from workers.child import Child

pytestmark = pytest.mark.usefixtures("unlimited")

VOXELS = np.zeros((8, 24, 24))
VOXELS[2:5, 6:14, 4:10] = 900
VOXELS += np.arange(24)


def outcome_of(bundle: Path, tmp_path: Path) -> dict[str, Any]:
    """Of one job; what is no outcome fails."""
    wire = StringIO()
    paths = write_series(tmp_path / "in", VOXELS, axial(VOXELS.shape))
    Child(wire).answer(to_json(job_order(paths, bundle, tmp_path / "out")))
    found: dict[str, Any] = json.loads(wire.getvalue().splitlines()[-1])
    assert "outcome" in found, found
    outcome: dict[str, Any] = found["outcome"]
    return outcome


def assert_held_back(outcome: dict[str, Any], code: str, tmp_path: Path) -> None:
    """With its code and a sentence, and without an object."""
    assert (outcome["status"], outcome["reason_code"]) == ("refused", code), outcome["reason"]
    assert outcome["reason"]
    assert outcome["objects"] == []
    assert not list((tmp_path / "out").glob("*.dcm"))


def saying(bundle: Path, statement: str, last: str | None = None) -> Path:
    """A bundle whose network does something else, and whose last transform is another."""
    script = bundle / "scripts/network.py"
    script.write_text(script.read_text().replace("        pass\n", f"        {statement}\n"))
    file = bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    if last is not None:
        config["postprocessing"]["transforms"] = [{"_target_": "Lambdad", "keys": "pred", "func": f"${last}"}]
    file.write_text(json.dumps(config))
    return bundle


@pytest.mark.parametrize(
    ("statement", "last", "code"),
    [
        ("image = image / 0", None, "output_not_finite"),
        ("image[..., 3] = float('inf')", None, "output_not_finite"),
        ("image = image[..., :0]", None, "output_shape"),
        ("image = image[0]", None, "output_shape"),
        ("image = torch.cat([image, image], 1)", None, "output_shape"),
        ("pass", "lambda label: label / 2", "output_values"),
        ("pass", "lambda label: label.round() * -1", "output_values"),
        ("pass", "lambda label: label.round() * 255", "output_values"),
        ("pass", "lambda label: label.round() * 257", "output_values"),
        ("pass", "lambda label: label * float('nan')", "output_not_finite"),
        ("pass", "lambda label: label[:, :, :0]", "output_shape"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, statement: str, last: str | None, code: str) -> None:
    """Not finite, of another shape, not whole, below nothing, unknown, unknown and one after 8 bits."""
    bundle = saying(write_bundle(tmp_path / "b"), statement, last)
    assert_held_back(outcome_of(bundle, tmp_path), code, tmp_path)


@pytest.mark.parametrize("method", ["mc_dropout", "tta"])
def test_a_sample_that_is_none(tmp_path: Path, method: str) -> None:
    """The plain answer was good."""
    bundle = write_bundle(tmp_path / "b", "dropout", uncertainty={"method": method, "samples": 2})
    script = bundle / "scripts/network.py"
    asked = "self.drop.training" if method == "mc_dropout" else "self.asked"
    count = "self.asked, self.times = getattr(self, 'times', 0) > 0, getattr(self, 'times', 0) + 1"
    script.write_text(
        script.read_text().replace(
            "image = self.drop(image)\n", f"{count}\n        image = image * (float('nan') if {asked} else 1)\n"
        )
    )
    assert_held_back(outcome_of(bundle, tmp_path), "output_not_finite", tmp_path)


@pytest.mark.parametrize("combine", ["mean", "vote", "staple"])
def test_a_member_that_gives_none(tmp_path: Path, combine: str) -> None:
    """One of three; the others cannot outvote it."""
    bundle = saying(write_bundle(tmp_path / "b"), "image = image + self.level * 0")
    members = []
    for number, level in enumerate((0.5, np.nan)):
        data = save({"level": np.full(1, level, np.float32)})
        (bundle / f"models/{number}.safetensors").write_bytes(data)
        members.append({"file": f"models/{number}.safetensors", "sha256": hashlib.sha256(data).hexdigest()})
    manifest = yaml.safe_load((bundle / "hilum.yaml").read_text())
    manifest["ensemble"] = {"members": members, "combine": combine}
    (bundle / "hilum.yaml").write_text(yaml.safe_dump(manifest))
    assert_held_back(outcome_of(bundle, tmp_path), "output_not_finite", tmp_path)


@pytest.mark.parametrize(
    ("answer", "exclusive", "code"),
    [
        ("* float('nan')", True, "output_not_finite"),
        ("[:, :2]", True, "output_shape"),
        ("[:, :0]", True, "output_shape"),
    ],
)
def test_probabilities_that_are_none(tmp_path: Path, answer: str, exclusive: bool, code: str) -> None:
    """Not finite, too few, none at all."""
    bundle = write_classifier(tmp_path / "b", exclusive=exclusive)
    script = bundle / "scripts/network.py"
    script.write_text(script.read_text().replace(".mean((2, 3, 4)))", f".mean((2, 3, 4))){answer}"))
    assert_held_back(outcome_of(bundle, tmp_path), code, tmp_path)


@pytest.mark.parametrize(
    ("change", "code"), [("+ 1", "output_values"), ("- 1", "output_values"), ("* float('inf')", "output_not_finite")]
)
def test_probabilities_above_one_and_below_nothing(tmp_path: Path, change: str, code: str) -> None:
    """After the bundle's own postprocessing."""
    bundle = write_classifier(tmp_path / "b", exclusive=False)
    file = bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    last = {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda pred: pred {change}"}
    config["postprocessing"] = {"_target_": "Compose", "transforms": [config["postprocessing"], last]}
    file.write_text(json.dumps(config))
    assert_held_back(outcome_of(bundle, tmp_path), code, tmp_path)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_an_explanation_that_is_none(tmp_path: Path, method: str) -> None:
    """A gradient that is no number, or an answer that is none once something is hidden: the result stands, the map does not."""
    settings = {
        "method": method,
        "of": 1,
        "samples": 2,
        "faithfulness": {"steps": 4, "blocks": 4, "orders": 1, "networks": 1},
    }
    bundle = write_classifier(tmp_path / "b", exclusive=True, explanation=settings)
    script = bundle / "scripts/network.py"
    broken = "image = image + 0 * torch.sqrt(torch.zeros_like(image) * image)\n        "
    if method == "occlusion":
        broken = "image = image * (float('nan') if getattr(self, 'asked', False) else 1); self.asked = True\n        "
    script.write_text(script.read_text().replace("        return self.head", f"        {broken}return self.head"))
    outcome = outcome_of(bundle, tmp_path)
    if outcome["status"] == "complete":
        (why,) = outcome["explanations"]
        assert not why["shown"]
        assert why["reason"]
        assert not [item for item in outcome["objects"] if item["role"] == "pm"]
    else:
        assert_held_back(outcome, "output_not_finite", tmp_path)


@pytest.mark.parametrize("affine", ["float('nan')", "0"])
def test_labels_that_lie_nowhere(tmp_path: Path, affine: str) -> None:
    """Their affine is no number, or takes everything to one point."""
    bundle = saying(write_bundle(tmp_path / "b"), "pass")
    file = bundle / "configs/inference.json"
    config = json.loads(file.read_text())
    config["postprocessing"]["transforms"].append({"_target_": "scripts.elsewhere.Elsewhere"})
    (bundle / "scripts/elsewhere.py").write_text(
        "class Elsewhere:\n    def __call__(self, data):\n"
        f"        data['pred'].affine = data['pred'].affine * {affine}\n        return data\n"
    )
    file.write_text(json.dumps(config))
    assert_held_back(outcome_of(bundle, tmp_path), "output_grid", tmp_path)
