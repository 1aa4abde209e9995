"""A small real detector as a MONAI bundle: it puts a box around each connected bright thing, by torch alone.

Its boxes leave it as those of MONAI's detection bundles do: `box`, `label` and `label_scores`, in a mode and in coordinates
of choice, by MONAI's own transforms.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.bundles import write_bundle

_NETWORK = '''"""Boxes around bright things."""

import torch
from torch.nn import functional


class Network(torch.nn.Module):
    """(1, 1, ...) to one dict with box (all lowest corners, then all highest), label and label_scores."""

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        image = image[0, 0]
        mask = image > self.level
        spread = functional.max_pool3d if image.dim() == 3 else functional.max_pool2d
        ids = torch.arange(1, image.numel() + 1, dtype=torch.float64).reshape(image.shape) * mask
        while True:
            wider = spread(ids[None, None], 3, 1, 1)[0, 0] * mask
            if torch.equal(wider, ids):
                break
            ids = wider
        boxes, scores = [], []
        for number in ids.unique()[1:] if mask.any() and not mask.all() else ids.unique():
            places = (ids == number).nonzero()
            if number == 0:
                continue
            boxes.append(torch.cat([places.min(0).values - 0.5, places.max(0).values + 0.5]))
            scores.append(image[ids == number].mean())
        found = torch.stack(boxes).double() if boxes else torch.zeros(0, 2 * image.dim(), dtype=torch.float64)
        twice = torch.cat([found, found + 0.25])  # the same again, a little aside: one must go
        score = torch.stack(scores) if scores else torch.zeros(0)
        # By size: what is larger than 40 voxels is of the second class.
        size = (found[:, image.dim():] - found[:, : image.dim()]).prod(1)
        label = (size > 300).long()
        return [{{"box": twice, "label": torch.cat([label, label]), "label_scores": torch.cat([score, score * 0.9])}}]
'''


def write_detector(directory: Path, output: dict[str, Any], *, orientation: str = "") -> Path:
    """Writes the bundle with this `output` in its manifest and returns the directory.

    ``orientation`` turns the volume for the network, as many bundles do.
    """
    write_bundle(directory)
    (directory / "scripts/network.py").write_text(_NETWORK.replace("{{", "{").replace("}}", "}"))
    settings = output["boxes"]
    config = json.loads((directory / "configs/inference.json").read_text())
    if orientation:
        config["preprocessing"]["transforms"].insert(
            0, {"_target_": "Orientationd", "keys": "image", "axcodes": orientation}
        )
    after: list[dict[str, Any]] = []
    mode = settings.get("mode", "xyzxyz")
    if settings.get("coordinates", "index") != "index":
        after.append(
            {
                "_target_": "monai.apps.detection.transforms.dictionary.AffineBoxToWorldCoordinated",
                "box_keys": "box",
                "box_ref_image_keys": "image",
                "affine_lps_to_ras": settings["coordinates"] == "lps",  # turns the affine's RAS to LPS and back alike
            }
        )
    if mode not in ("xyxy", "xyzxyz"):
        after.append(
            {
                "_target_": "monai.apps.detection.transforms.dictionary.ConvertBoxModed",
                "box_keys": "box",
                "src_mode": "xyxy" if len(mode) == 4 else "xyzxyz",
                "dst_mode": mode,
            }
        )
    config["postprocessing"]["transforms"] = after
    (directory / "configs/inference.json").write_text(json.dumps(config, indent=2))
    manifest = yaml.safe_load((directory / "hilum.yaml").read_text()) | {"output": output}
    (directory / "hilum.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return directory
