"""The files of a bundle: its manifest read and checked, its weights proven, its digest."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import yaml
from pydantic import ValidationError

from gateway.bundle.manifest import Manifest
from gateway.bundle.network import Acceleration
from gateway.domain.errors import BundleInvalid

FILE_NAME = "hilum.yaml"


def _check_acceleration(manifest: Manifest, name: str) -> None:
    plain = manifest.acceleration is None or manifest.acceleration.model_copy(update={"agreement": 1}) == Acceleration(
        agreement=1
    )
    if not plain and not any(case.expect for case in manifest.acceptance):
        raise BundleInvalid(f"{name}/{FILE_NAME}: acceleration needs acceptance cases that show its agreement")


def read_manifest(bundle: Path) -> Manifest:
    """Reads and checks the manifest of a bundle directory; raises BundleInvalid with the key that is wrong."""
    file = bundle / FILE_NAME
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleInvalid(f"{bundle.name} is no Hilum bundle: {FILE_NAME} is missing") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # a date that is none is a ValueError
        problem = " ".join(str(error).split())[:200]
        raise BundleInvalid(f"{bundle.name}/{FILE_NAME} cannot be read: {problem}") from error
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleInvalid(f"{bundle.name}/{FILE_NAME}: {where}: {first['msg']}") from error
    _check_acceleration(manifest, bundle.name)
    return manifest


def check_weights(bundle: Path, manifest: Manifest) -> None:
    """Proves that the weights are there and are those the manifest pins; raises BundleInvalid."""
    for weights in manifest.weight_files:
        file = bundle / weights.file
        if not file.is_file():
            raise BundleInvalid(
                f"the weights {weights.file} of {manifest.name} are missing: run `hilum models prepare`"
            )
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != weights.sha256:
            raise BundleInvalid(
                f"the weights of {manifest.name} have SHA-256 {found[:12]}..., its manifest pins {weights.sha256[:12]}..."
            )


_BUILTIN = "builtin:"
SIGNATURE = "hilum.sig"
_NOT_THE_MODEL = {"docs", "__pycache__", SIGNATURE}  # parts of a bundle that do not change what it computes


def bundle_digest(bundle: Path) -> str:
    """SHA-256 over the names and contents of all files of a bundle that decide what it computes."""
    state = hashlib.sha256()
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        name = file.relative_to(bundle)
        if _NOT_THE_MODEL.isdisjoint(name.parts) and not any(part.startswith(".") for part in name.parts):
            state.update(f"{name.as_posix()}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    state.update(chunk)
    return state.hexdigest()


def resolve_bundle(spec: str, base: Path) -> Path:
    """The directory of `builtin:NAME`, or of a path relative to `base`; raises BundleInvalid where there is none."""
    if not spec.startswith(_BUILTIN):
        path = (base / Path(spec).expanduser()).resolve()
        if not path.is_dir():
            raise BundleInvalid(f"no bundle in {path}")
        return path
    name = spec.removeprefix(_BUILTIN).replace("-", "_")
    known = {path.name: path for path in builtin_bundles()}
    if name not in known:
        raise BundleInvalid(f"no bundle {spec!r} ships with Hilum; there are {', '.join(sorted(known)) or 'none'}")
    return known[name]


def builtin_bundles() -> list[Path]:
    """The bundles that ship with Hilum; none where the worker's part is not installed."""
    package = find_spec("workers")  # found, not imported: the gateway loads no model code
    roots = [Path(root) / "bundles" for root in (package.submodule_search_locations or [])] if package else []
    return sorted(file.parent for root in roots for file in root.glob(f"*/{FILE_NAME}"))
