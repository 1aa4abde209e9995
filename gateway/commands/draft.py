"""`hilum models init`: a manifest for a bundle that has none, from what is there and a few questions."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gateway.bundle.files import FILE_NAME, bundle_digest, read_manifest
from gateway.bundle.fused import check_parts
from gateway.commands.models import find
from gateway.domain.errors import BundleInvalid

_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_TISSUE = {"value": "85756007", "scheme": "SCT", "meaning": "Tissue"}
_VOLUME = {"value": "118565006", "scheme": "SCT", "meaning": "Volume"}
_ML = {"value": "mL", "scheme": "UCUM", "meaning": "milliliter"}

Ask = Callable[[str, str], str]
"""Question and proposal -> answer."""


def draft(directory: Path, fuse: Sequence[str], config: Path | None, ask: Ask) -> str:
    """Writes the manifest of a MONAI bundle, or of a fusion of the models called so; says what is left to do."""
    if not fuse:
        return f"wrote {init(directory, ask)}: give each segment its own code, and read docs/manifest.md"
    file = init_fusion(directory, {name: find(config, name) for name in fuse}, ask)
    return f"wrote {file}: say what it is for, and read docs/manifest.md (several models)"


def init(directory: Path, ask: Ask) -> Path:
    """Writes a manifest beside a MONAI bundle from its metadata.json and a few answers; raises BundleInvalid."""
    file = directory / FILE_NAME
    if file.exists():
        raise BundleInvalid(f"{file} is there already: edit it, or take it away first")
    return _written(directory, _drafted(directory, _metadata(directory), ask))


def init_fusion(directory: Path, parts: Mapping[str, Path], ask: Ask) -> Path:
    """Writes the manifest of a fusion of other bundles, pinned as they are; raises BundleInvalid.

    ``parts`` are bundles by the names that people know them by. What it puts out, and the series that results lie on, are
    proposed to be those of the first part.
    """
    if len(parts) < 2:
        raise BundleInvalid("a fusion is of two models or more")
    if (directory / FILE_NAME).exists():
        raise BundleInvalid(f"{directory / FILE_NAME} is there already: edit it, or take it away first")
    bundles = {_short(name): path for name, path in parts.items()}
    manifests = {name: read_manifest(path) for name, path in bundles.items()}
    first = next(iter(manifests.values()))
    ways = "mean, vote or staple" if first.output.kind == "segmentation" else "mean"
    described = _described(directory, {"name": directory.name.replace("_", " ").capitalize()}, ask)
    combine = ask(f"How their answers become one: {ways}; rules are written by hand", "mean")
    each = [
        {"name": name, "run": manifest.name, "digest": bundle_digest(bundles[name])}
        for name, manifest in manifests.items()
    ]
    each = _weighed(each, combine, ask)
    missing = ask("Where a part has no series: refuse, or leave_out", "refuse")
    drafted = {
        **described,
        "fusion": {"parts": [{**one, "missing": missing} for one in each], "combine": combine},
        "input": first.input.model_dump(mode="json", exclude_defaults=True, exclude={"name", "envelope", "missing"}),
        "output": first.output.model_dump(mode="json", exclude_defaults=True),
        "resources": {
            "memory_mib": max(one.resources.memory_mib for one in manifests.values()),
            "timeout_s": sum(one.resources.timeout_s for one in manifests.values()),
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    file = _written(directory, drafted)
    try:
        check_parts(read_manifest(directory), manifests)
    except BundleInvalid:
        file.unlink()
        raise
    return file


def _written(directory: Path, manifest: dict[str, Any]) -> Path:
    file = directory / FILE_NAME
    file.write_text(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        read_manifest(directory)
    except BundleInvalid:
        file.unlink()
        raise
    return file


def _metadata(directory: Path) -> dict[str, Any]:
    try:
        data = json.loads((directory / "configs/metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleInvalid(f"{directory} is no MONAI bundle: configs/metadata.json cannot be read") from error
    if not isinstance(data, dict):
        raise BundleInvalid(f"{directory} is no MONAI bundle: configs/metadata.json holds no keys")
    return data


def _drafted(directory: Path, metadata: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    files = _weight_files(directory)
    form: dict[str, Any] = metadata.get("network_data_format", {})
    image: dict[str, Any] = next(iter(form.get("inputs", {}).values()), {})
    return {
        **_described(directory, metadata, ask),
        **_weights(files, ask),
        **_series(image, ask),
        **_training(image),
        "output": {
            "kind": "segmentation",
            "segments": (labels := _segments(form, ask)),
            "measurements": _volumes(labels),
        },
    }


def _described(directory: Path, metadata: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
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
    }


def _weight_files(directory: Path) -> dict[str, Path]:
    there = {path.name: path for path in sorted(directory.glob("models/*")) if path.suffix in _WEIGHTS}
    if not there:
        raise BundleInvalid(f"{directory}/models holds no weights ({', '.join(_WEIGHTS)})")
    return there


def _weights(there: Mapping[str, Path], ask: Ask) -> dict[str, Any]:
    """Of the network; with an ensemble where several files are chosen."""
    chosen = [next(iter(there))]
    if len(there) > 1:
        question = f"Weights, with commas where several of one network are an ensemble ({', '.join(there)})"
        chosen = _listed(ask(question, chosen[0])) or chosen
    if unknown := [name for name in chosen if name not in there]:
        raise BundleInvalid(f"models holds no {', '.join(unknown)}")
    pinned = [
        {"file": f"models/{name}", "sha256": hashlib.sha256(there[name].read_bytes()).hexdigest()} for name in chosen
    ]
    if len(pinned) == 1:
        return {"weights": pinned[0]}
    combine = ask("How their answers become one: mean, vote or staple", "mean")
    pinned = _weighed(pinned, combine, ask)
    return {"weights": pinned[0], "ensemble": {"members": pinned[1:], "combine": combine}}


def _weighed(each: list[dict[str, Any]], combine: str, ask: Ask) -> list[dict[str, Any]]:
    """With the weight of each, where there are any."""
    if combine not in ("mean", "vote"):
        return each
    text = ask("How much each counts, with commas, to 1 in the sum; all the same where nothing is said", "")
    weights = _listed(text)
    if not weights:
        return each
    try:
        return [{**one, "weight": float(weight)} for one, weight in zip(each, weights, strict=True)]
    except ValueError:
        raise BundleInvalid(f"{text!r} is not one number for each of {len(each)}") from None


def _series(image: dict[str, Any], ask: Ask) -> dict[str, Any]:
    """One input, or several where the network has a channel for each."""
    modality = _listed(ask("Modalities, with commas", _modality(image)))
    channels = [str(name) for name in image.get("channel_def", {}).values()]
    proposed = ", ".join(channels) if 1 < len(channels) == image.get("num_channels") else "image"
    question = "Series that one result is made of, in the order of the network's channels, with commas"
    names = _listed(ask(question, proposed))
    if len(names) < 2:
        return {"input": {"modality": modality}}
    return {"inputs": [{"name": _short(name), "modality": modality, "select": _says(name, ask)} for name in names]}


def _says(name: str, ask: Ask) -> str:
    text = ask(f"What the Series Description of {name} holds", name)
    return f"series.description.contains({json.dumps(text)})"


def _short(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower()).strip("_")[:64]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


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
    labels = _listed(ask("Segments in the order of their numbers, with commas", ",".join(proposed)))
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
