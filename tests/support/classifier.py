"""A small bundle that classifies, for tests: its logits follow from the brightness of the images."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save

from tests.support.bundles import write_bundle

FINDINGS = ("bright", "dark", "other")

_NETWORK = '''"""A classifier for tests."""

import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.look = torch.nn.Conv3d(1, 2, 1)
        self.head = torch.nn.Linear(2, 3)

    def forward(self, image):
        return self.head(torch.relu(self.look(image)).mean((2, 3, 4)))
'''


def write_classifier(directory: Path, *, exclusive: bool, calibrated: float = 0.0, **keys: Any) -> Path:
    """Writes the bundle; ``calibrated`` is a temperature, ``keys`` are further ones of its manifest."""
    write_bundle(directory)
    state = {
        "look.weight": np.array([1.0, -1.0], np.float32).reshape(2, 1, 1, 1, 1),
        "look.bias": np.array([0.0, 1.0], np.float32),
        "head.weight": np.array([[6.0, 0.0], [0.0, 6.0], [0.5, 0.5]], np.float32),
        "head.bias": np.zeros(3, np.float32),
    }
    weights = save(state)
    (directory / "models/model.safetensors").write_bytes(weights)
    (directory / "scripts/network.py").write_text(_NETWORK)
    file = directory / "configs/inference.json"
    config = json.loads(file.read_text())
    config["postprocessing"] = {
        "_target_": "Activationsd",
        "keys": "pred",
        **({"softmax": True, "dim": 0} if exclusive else {"sigmoid": True}),
    }
    file.write_text(json.dumps(config))
    file = directory / "hilum.yaml"
    manifest = yaml.safe_load(file.read_text())
    manifest["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    named = [{"name": {"value": name, "scheme": "99TEST", "meaning": name.capitalize()}} for name in FINDINGS]
    manifest["output"] = {"kind": "classification", "exclusive": exclusive, "findings": named}
    manifest |= {"calibration": {"file": "calibration.json"}} if calibrated else {}
    file.write_text(yaml.safe_dump(manifest | keys, sort_keys=False))
    if calibrated:
        write_calibration(directory, hashlib.sha256(weights).hexdigest(), calibrated)
    return directory


def write_calibration(directory: Path, weights: str, temperature: float) -> None:
    """As `hilum models calibrate` would."""
    found = {
        "weights": weights,
        "findings": FINDINGS,
        "slopes": [1 / temperature] * 3,
        "offsets": [0.0] * 3,
        "cases": 40,
        "error_before": 0.2,
        "error_after": 0.02,
    }
    (directory / "calibration.json").write_text(json.dumps(found))


def write_cases(directory: Path, name: str, rows: dict[str, list[float]]) -> None:
    """labels.csv or logits.csv."""
    directory.mkdir(exist_ok=True)
    with (directory / name).open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["case", *FINDINGS])
        table.writerows([case, *row] for case, row in rows.items())
