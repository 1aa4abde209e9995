"""Which builds of a bundle may run here: those that the site pinned, and whose acceptance cases passed on this machine."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway.bundle.manifest import Manifest
from gateway.domain.errors import BundleInvalid

FOLDER = "admitted"  # in the data directory
_DECIDES_NUMBERS = ("torch", "monai", "numpy", "scipy", "onnxruntime")


def check_pin(name: str, pinned: str | None, digest: str) -> None:
    """Raises BundleInvalid where a site pinned another build than is there."""
    if pinned is not None and pinned != digest:
        raise BundleInvalid(
            f"{name} is not the build that is pinned: its digest is {digest[:12]}..., not {pinned[:12]}...; "
            f"where the change is meant, `hilum models pin {name}`",
            code="not_pinned",
        )


def check_accepted(data_dir: Path, name: str, manifest: Manifest, digest: str) -> None:
    """Raises BundleInvalid where a bundle has acceptance cases that did not pass here, with these libraries."""
    if not manifest.acceptance:
        return
    try:
        passed = json.loads(_record(data_dir, digest).read_text(encoding="utf-8"))["machine"] == machine()
    except (OSError, ValueError, KeyError, TypeError):
        passed = False
    if not passed:
        raise BundleInvalid(
            f"{name} has acceptance cases that have not passed on this machine: run `hilum models test {name}`",
            code="not_accepted",
        )


def remember_accepted(data_dir: Path, manifest: Manifest, digest: str) -> Path:
    """Writes down that all cases passed here."""
    file = _record(data_dir, digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    cases = [case.name for case in manifest.acceptance]
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"name": manifest.name, "digest": digest, "machine": machine(), "cases": cases}))
    return partial.replace(file)


def machine() -> str:
    """Changes where numbers may change: another processor, or other libraries."""
    parts = [platform.machine(), _processor(), *(f"{name} {_version(name)}" for name in _DECIDES_NUMBERS)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _record(data_dir: Path, digest: str) -> Path:
    return data_dir / FOLDER / f"{digest}.json"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
