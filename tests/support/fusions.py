"""Fusions of other bundles, for tests: one answer of the demonstration models, or of any that are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway.bundle.files import builtin_bundles, bundle_digest, read_manifest

BRAIN: dict[str, Any] = {
    "number": 1,
    "label": "Brain",
    "category": {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"},
    "type": {"value": "12738006", "scheme": "SCT", "meaning": "Brain"},
    "cielab": [62.0, 52.0, 30.0],
}
VOLUME: dict[str, Any] = {
    "kind": "volume",
    "segment": 1,
    "name": {"value": "118565006", "scheme": "SCT", "meaning": "Volume"},
    "unit": {"value": "mL", "scheme": "UCUM", "meaning": "milliliter"},
}
SEGMENTATION: dict[str, Any] = {"kind": "segmentation", "segments": [BRAIN], "measurements": [VOLUME]}


def builtin(name: str) -> Path:
    """A bundle that ships with Hilum."""
    return next(path for path in builtin_bundles() if path.name == name)


def write_fusion(
    directory: Path,
    parts: Mapping[str, tuple[Path, Mapping[str, Any]]],
    output: Mapping[str, Any] = SEGMENTATION,
    *,
    select: str = "true",
    name: str = "both",
    memory_mib: int = 6144,
    registration: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """Writes the bundle; each part is its bundle, pinned as it lies there, with further keys; ``keys`` are those of `fusion`."""
    directory.mkdir(parents=True, exist_ok=True)
    each = [
        {"name": part, "run": read_manifest(path).name, "digest": bundle_digest(path), **more}
        for part, (path, more) in parts.items()
    ]
    manifest: dict[str, Any] = {
        "manifest": 1,
        "name": name,
        "version": "1.0.0",
        "title": "Two models as one",
        "intended_use": "Tests; never for a patient.",
        "license": "Apache-2.0",
        "device": {"manufacturer": "Hilum", "model_name": name, "uid": "2.25.4712"},
        "fusion": {"parts": each, **keys},
        "input": {"modality": ["MR"], "select": select},
        "output": dict(output),
        "resources": {"memory_mib": memory_mib, "timeout_s": 300},
    }
    manifest |= {"registration": dict(registration)} if registration else {}
    (directory / "hilum.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return directory
