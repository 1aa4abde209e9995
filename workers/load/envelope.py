"""Whether a volume is like the images a model was made for, measured against a fingerprint of reference images."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.bundle.input import Envelope
from gateway.domain.errors import BundleInvalid, InputRefused
from workers.load.quality import WORDS, figures, likeness, thumbnail, turned_over
from workers.load.uneven import even
from workers.load.volume import Volume

VERSION = 2

_WIDTHS = {"size": 0.0, "noise": 0.04, "air": 0.025, "saturated": 0.02, "empty": 0.1, "cut": 0.2, "sharp": 1.0}
"""The least width of a range: a few reference images show less than there is. For the rest it is 0.15."""
_SIZE_FACTOR = 1.6  # people differ in size by ratios, not by millilitres
_LONELY = 0.6  # likeness of a single reference image to others, which nobody has measured
_LIKENESS_WIDTH = 0.1
_LARGEST = 2**20  # bytes of a fingerprint


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a model's reference images are like; no image can be read out of it but a blur of all of them."""

    images: int
    figures: dict[str, tuple[float, float]]  # the least and the largest of each figure
    likeness: float  # the least of one reference image to the mean of the others
    thumbnail: NDArray[np.float32]  # the mean of theirs

    def to_json(self) -> str:
        """As `fingerprint.json` of a bundle."""
        pixels = base64.b64encode(np.rint(self.thumbnail * 255).astype(np.uint8).tobytes()).decode()
        values = {name: [float(f"{low:.6g}"), float(f"{high:.6g}")] for name, (low, high) in self.figures.items()}
        data = {"version": VERSION, "images": self.images, "figures": values, "likeness": round(self.likeness, 4)}
        return json.dumps({**data, "thumbnail": pixels}, indent=1) + "\n"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a volume compares."""

    figures: dict[str, float]
    score: float  # 0 inside; else how far outside the worst figure is, in widths of its range
    problems: tuple[tuple[str, str], ...]  # figure and sentence, the worst first


def read_fingerprint(file: Path) -> Fingerprint:
    """Reads what `to_json` wrote; raises BundleInvalid."""
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("too large")
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']}")
        pixels = np.frombuffer(base64.b64decode(data["thumbnail"]), np.uint8).reshape(16, 16, 16)
        return Fingerprint(
            images=int(data["images"]),
            figures={str(name): (float(low), float(high)) for name, (low, high) in data["figures"].items()},
            likeness=float(data["likeness"]),
            thumbnail=pixels.astype(np.float32) / np.float32(255),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleInvalid(f"the fingerprint {file.name} cannot be read: {error}") from error


def take_fingerprint(volumes: Iterable[Volume]) -> Fingerprint:
    """The fingerprint of reference images; one is enough, twenty are better."""
    found, thumbnails = [], []
    for volume in map(even, volumes):
        found.append(figures(volume))
        thumbnails.append(thumbnail(volume))
    return Fingerprint(
        images=len(found),
        figures={name: (min(one[name] for one in found), max(one[name] for one in found)) for name in found[0]},
        likeness=_least_likeness(thumbnails),
        thumbnail=np.stack(thumbnails).mean(axis=0).astype(np.float32),
    )


def judge(volume: Volume, reference: Fingerprint, reach: float) -> Verdict:
    """Compares a volume with the reference images; ``reach`` says how many widths of their range it may lie outside."""
    volume = even(volume)
    found, picture = figures(volume), thumbnail(volume)
    found["likeness"] = likeness(picture, reference.thumbnail)
    far = [(_beyond(name, value, reference, reach), name) for name, value in found.items()]
    outside = sorted((item for item in far if item[0] > 0), reverse=True)
    problems = [
        (name, f"{WORDS[name].format(value=found[name])} ({_taken(name, reference, reach)})") for _, name in outside
    ]
    if (axis := turned_over(picture, reference.thumbnail)) is not None:
        problems.insert(0, ("turned", f"the images look turned over, {axis}, against what their geometry says"))
    score = max((distance for distance, _ in outside), default=0.0)
    return Verdict(figures=found, score=score, problems=tuple(problems))


def enforce(volume: Volume, reference: Fingerprint, envelope: Envelope) -> tuple[Volume, Verdict]:
    """The volume, flagged where it is outside and may be; raises InputRefused (`envelope_...`) where it may not."""
    verdict = judge(volume, reference, envelope.reach)
    if envelope.outside == "refuse" and any(name not in envelope.flag for name, _ in verdict.problems):
        raise InputRefused(
            "not processed: the images are not such as the model was made for: "
            + "; ".join(sentence for _, sentence in verdict.problems),
            code=f"envelope_{verdict.problems[0][0]}",
        )
    flags = tuple(f"Outside what the model was made for: {sentence}." for _, sentence in verdict.problems)
    return replace(volume, flags=(*volume.flags, *flags)), verdict


def within(volume: Volume, reference: Fingerprint | None, envelope: Envelope | None) -> tuple[Volume, dict[str, float]]:
    """The volume and its figures, with `outside`; raises InputRefused as `enforce` does. No figures without an envelope."""
    if envelope is None or reference is None:
        return volume, {}
    checked, verdict = enforce(volume, reference, envelope)
    return checked, {**{name: round(value, 6) for name, value in verdict.figures.items()}, "outside": verdict.score}


def limits(name: str, reference: Fingerprint, reach: float) -> tuple[float, float]:
    """Between what a figure may lie."""
    if name == "likeness":
        return reference.likeness - reach * _LIKENESS_WIDTH, 1.0
    low, high = reference.figures.get(name, (-np.inf, np.inf))
    if name == "size":
        factor = 1 + (_SIZE_FACTOR - 1) * reach
        return low / factor, high * factor
    width = max(high - low, _WIDTHS.get(name, 0.15))
    return low - reach * width, high + reach * width


def _beyond(name: str, value: float, reference: Fingerprint, reach: float) -> float:
    low, high = limits(name, reference, reach)
    return max(low - value, value - high, 0.0) / max(high - low, 1e-9) if np.isfinite(high - low) else 0.0


def _taken(name: str, reference: Fingerprint, reach: float) -> str:
    low, high = limits(name, reference, reach)
    if name == "likeness":
        return f"at least {low:.2f} is taken"
    if name == "size":
        return f"{low:.0f} to {high:.0f} ml are taken"
    if name == "sharp":
        return f"up to {high:.1f} mm are taken"
    return f"up to {high:.1%} is taken" if low <= 0 else f"{low:.1%} to {high:.1%} is taken"


def _least_likeness(thumbnails: Sequence[NDArray[np.float32]]) -> float:
    """Of each to the mean of all; a single one says nothing of others."""
    if len(thumbnails) < 2:
        return _LONELY
    mean = np.mean(thumbnails, axis=0)
    least = min(likeness(one, mean) for one in thumbnails)
    return min(least, 0.7 if len(thumbnails) < 3 else 0.8 if len(thumbnails) < 5 else 1.0)
