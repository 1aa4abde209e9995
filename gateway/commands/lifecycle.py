"""`hilum models init, add, test, pin, remove`: a bundle's way into a site, and out of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gateway.admitted import remember_accepted
from gateway.commands.edit import drop_model, pin_model, set_model
from gateway.commands.models import beside, bundles, find
from gateway.commands.process import process
from gateway.domain.errors import BundleInvalid, ConfigurationError, HilumError, InputRefused
from gateway.domain.messages import Outcome
from gateway.manifest import FILE_NAME, AcceptanceCase, bundle_digest, check_weights, read_manifest, resolve_bundle
from gateway.settings import read_settings
from gateway.signature import check_signature, sign_bundle

COPIES = "bundles"  # in the data directory
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_TISSUE = {"value": "85756007", "scheme": "SCT", "meaning": "Tissue"}
_VOLUME = {"value": "118565006", "scheme": "SCT", "meaning": "Volume"}
_ML = {"value": "mL", "scheme": "UCUM", "meaning": "milliliter"}

Ask = Callable[[str, str], str]
"""Question and proposal -> answer."""


def init(directory: Path, ask: Ask) -> Path:
    """Writes a manifest beside a MONAI bundle from its metadata.json and a few answers; raises BundleInvalid."""
    file = directory / FILE_NAME
    if file.exists():
        raise BundleInvalid(f"{file} is there already: edit it, or take it away first")
    manifest = _drafted(directory, _metadata(directory), ask)
    file.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        read_manifest(directory)
    except BundleInvalid:
        file.unlink()
        raise
    return file


def add(config: Path, directory: Path, name: str | None) -> str:
    """Verifies a bundle, has its acceptance cases pass, copies it where nobody works on it, and pins it in the site's file."""
    source = resolve_bundle(str(directory), Path.cwd())
    manifest = read_manifest(source)
    check_weights(source, manifest)
    known = list(bundles(config).values())
    status = subprocess.call([sys.executable, "-m", "workers.models", "verify", str(source), *beside(known)])
    if status != 0:
        raise BundleInvalid(f"{manifest.name} is not added: it does not verify")
    settings = read_settings(config)
    digest = bundle_digest(source)
    if settings.models_trust is not None:
        check_signature(source, digest, settings.models_trust.keys, require=settings.models_trust.require)
    copy = settings.data_dir / COPIES / f"{manifest.name}-{digest[:12]}"
    if not copy.is_dir():
        partial = copy.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        partial.replace(copy)
    if bundle_digest(copy) != digest:
        raise BundleInvalid(f"{manifest.name} changed while it was copied, or its copy {copy} was changed")
    _accept(settings.data_dir, copy, known)
    set_model(config, name or manifest.name, str(copy), digest)
    return f"{name or manifest.name}: added, pinned to {digest[:12]}...; rules may run it now"


def sign(directory: Path, key: Path) -> str:
    """Signs the build that is there with a private key; raises ConfigurationError and BundleInvalid."""
    manifest = read_manifest(directory)
    check_weights(directory, manifest)
    file = sign_bundle(directory, bundle_digest(directory), key)
    return f"wrote {file}: {manifest.name} {manifest.version} is signed; a change of any file makes it void"


def test(config: Path | None, name: str) -> str:
    """Runs a bundle's acceptance cases on this machine, and remembers that they passed; raises BundleInvalid."""
    passed, faster = _accept(read_settings(config).data_dir, find(config, name), bundles(config).values())
    agrees = f"; {faster}" if faster else ""
    return f"{name}: {passed} acceptance cases passed{agrees}" if passed else f"{name} has no acceptance cases"


def pin(config: Path, name: str) -> str:
    """Writes the digest of the build that is there into the site's file."""
    settings = read_settings(config)
    if name not in settings.models:
        raise ConfigurationError(f"{config}: no model is called {name!r}")
    digest = bundle_digest(resolve_bundle(settings.models[name].bundle, Path.cwd()))
    pin_model(config, name, digest)
    return f"{name}: pinned to {digest}"


def remove(config: Path, name: str) -> str:
    """Takes a model out of the site's file, and its copy away; raises ConfigurationError while a rule runs it."""
    settings = read_settings(config)
    entry = settings.models.get(name)
    drop_model(config, name)
    assert entry is not None  # noqa: S101 - else there was nothing to drop
    copies = (settings.data_dir / COPIES).resolve()
    used = {other.bundle for key, other in settings.models.items() if key != name}
    if Path(entry.bundle).parent == copies and entry.bundle not in used:
        shutil.rmtree(entry.bundle, ignore_errors=True)
    return f"{name}: removed"


def _accept(data_dir: Path, bundle: Path, known: Iterable[Path]) -> tuple[int, str]:
    """How many cases passed, and what is to be said of a model that was made faster."""
    manifest, there = read_manifest(bundle), tuple(known)
    compared: list[Mapping[str, float]] = []
    problems = [
        f"{case.name}: {found}" for case in manifest.acceptance if (found := _problem(bundle, case, compared, there))
    ]
    if problems:
        raise BundleInvalid(f"{manifest.name} fails on this machine: {'; '.join(problems)}", code="not_accepted")
    if manifest.acceptance:
        remember_accepted(data_dir, manifest, bundle_digest(bundle))
    return len(manifest.acceptance), _faster(compared)


def _faster(compared: Sequence[Mapping[str, float]]) -> str:
    if not compared:
        return ""
    agrees = min(one["agreement"] for one in compared)
    speeds = sorted(one["speed"] for one in compared)
    speed = f"{speeds[0]:.2f}" if len(speeds) == 1 else f"{speeds[0]:.2f} to {speeds[-1]:.2f}"
    return f"made faster, it agrees with itself by {agrees:.4f} at least, and is {speed} x as fast"


def _problem(
    bundle: Path, case: AcceptanceCase, compared: list[Mapping[str, float]], known: Iterable[Path]
) -> str | None:
    with tempfile.TemporaryDirectory() as output:
        try:
            outcome = process(bundle / case.input, bundle, Path(output), compare=True, known=known).outcome
        except InputRefused as refusal:
            return None if refusal.code == case.refused else f"refused ({refusal.message})"
        except HilumError as error:
            return error.message
    compared += [outcome.quality] if "agreement" in outcome.quality else []
    return "done, where it should be refused" if case.refused else _unexpected(outcome, case)


def _unexpected(outcome: Outcome, case: AcceptanceCase) -> str | None:
    for expected in case.expect:
        values = [item.value for item in outcome.measurements if item.segment == expected.segment]
        if not values:
            return f"segment {expected.segment} is not measured"
        if not expected.min <= values[0] <= expected.max:
            return f"segment {expected.segment} measures {values[0]:.6g}, not {expected.min:g} to {expected.max:g}"
    return None


def _metadata(directory: Path) -> dict[str, Any]:
    try:
        data = json.loads((directory / "configs/metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleInvalid(f"{directory} is no MONAI bundle: configs/metadata.json cannot be read") from error
    if not isinstance(data, dict):
        raise BundleInvalid(f"{directory} is no MONAI bundle: configs/metadata.json holds no keys")
    return data


def _drafted(directory: Path, metadata: dict[str, Any], ask: Ask) -> dict[str, Any]:
    weights = next((path for path in sorted(directory.glob("models/*")) if path.suffix in _WEIGHTS), None)
    if weights is None:
        raise BundleInvalid(f"{directory}/models holds no weights ({', '.join(_WEIGHTS)})")
    form: dict[str, Any] = metadata.get("network_data_format", {})
    image: dict[str, Any] = next(iter(form.get("inputs", {}).values()), {})
    title = ask("Title, a few words for people", str(metadata.get("name") or directory.name)[:64])
    name = "".join(letter if letter.isalnum() else "_" for letter in title.lower()).strip("_")
    return {
        "manifest": 1,
        "name": ask("Name: a-z, 0-9, _ and -", name),
        "version": ask("Version", str(metadata.get("version", "1.0.0"))),
        "title": title,
        "intended_use": ask("What it is for, and what not", str(metadata.get("intended_use") or "Research only")),
        "license": ask("Licence (SPDX)", "Apache-2.0"),
        "device": {
            "manufacturer": ask("Who made it", str(metadata.get("authors") or "unknown")[:64]),
            "model_name": title,
            "uid": f"2.25.{uuid.uuid4().int}",
        },
        "weights": {
            "file": weights.relative_to(directory).as_posix(),
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "input": {"modality": ask("Modalities, with commas", _modality(image)).replace(" ", "").split(",")},
        **_training(image),
        "output": {
            "kind": "segmentation",
            "segments": (labels := _segments(form, ask)),
            "measurements": _volumes(labels),
        },
    }


def _modality(image: dict[str, Any]) -> str:
    known = {"MRI": "MR", "MR": "MR", "CT": "CT", "PET": "PT"}
    return known.get(str(image.get("modality", "")).upper(), "MR")


def _training(image: dict[str, Any]) -> dict[str, Any]:
    """MONAI's metadata give the shape that a network was trained on, or a rule for it, which says nothing."""
    shape = image.get("spatial_shape")
    told = isinstance(shape, list) and len(shape) in (2, 3) and all(isinstance(one, int) and one > 0 for one in shape)
    return {"training": {"patch": shape}} if told else {}


def _segments(form: dict[str, Any], ask: Ask) -> list[dict[str, Any]]:
    first: dict[str, Any] = next(iter(form.get("outputs", {}).values()), {})
    channels: dict[str, str] = first.get("channel_def", {})
    proposed = [str(text) for text in channels.values() if str(text).lower() != "background"] or ["Segment"]
    labels = [
        label.strip()
        for label in ask("Segments in the order of their numbers, with commas", ",".join(proposed)).split(",")
    ]
    return [
        {
            "number": number,
            "label": label[:64],
            "category": _TISSUE,
            "type": _TISSUE,  # to be replaced by the structure's own code (PS3.16 CID 7151)
            "cielab": [60.0, (47 * number) % 160 - 80.0, (83 * number) % 160 - 80.0],
        }
        for number, label in enumerate(labels, start=1)
    ]


def _volumes(segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"kind": "volume", "segment": segment["number"], "name": _VOLUME, "unit": _ML} for segment in segments]
