"""Manifests for tests that need one and do not care which."""

from __future__ import annotations

from typing import Any

from gateway.bundle.manifest import Manifest

CODE = {"value": "1", "scheme": "SCT", "meaning": "x"}
SEGMENT = {"number": 1, "label": "x", "category": CODE, "type": CODE, "cielab": [50, 0, 0]}


def plain_manifest(**changes: Any) -> Manifest:
    """Of a model that segments one structure in MR images; a key that is changed to None is left out."""
    values = {
        "manifest": 1,
        "name": "m",
        "version": "1",
        "title": "M",
        "intended_use": "test",
        "license": "Apache-2.0",
        "device": {"manufacturer": "x", "model_name": "m", "uid": "2.25.1"},
        "weights": {"file": "w", "sha256": "0" * 64},
        "input": {"modality": ["MR"]},
        "output": {"kind": "segmentation", "segments": [SEGMENT]},
    } | changes
    return Manifest.model_validate({key: value for key, value in values.items() if value is not None})
