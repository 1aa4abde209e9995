"""A result with its reasons: a saliency map on the images' own grid, or one sentence why there is none."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gateway.bundle.explanation import Explanation
from gateway.domain.messages import Code
from gateway.domain.messages import Explanation as Explained
from workers.explain.faithfulness import Scores, examine
from workers.explain.saliency import NAMES, Map, saliency
from workers.explain.subject import Painted, subject_of
from workers.infer.model import Model
from workers.infer.output import QuantityMap
from workers.infer.predict import LPS_TO_RAS, prepare
from workers.infer.regrid import regrid
from workers.infer.upright import straighten
from workers.load.volume import Volume

SALIENCY = Code(value="saliency", scheme="99HILUM", meaning="Saliency of an explanation")
RATIO = Code(value="1", scheme="UCUM", meaning="no units")
NOT_A_FINDING = "explanation, not a finding"
_LEAST = 0.02  # of the largest saliency; below it a map says nothing


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """What came of the question why."""

    explained: Explained
    maps: tuple[QuantityMap, ...]  # one, or none where it is not to be trusted

    @property
    def sentence(self) -> str:
        """For people."""
        return sentence(self.explained)


def explain(model: Model, volume: Volume, numbers: tuple[float, ...], settings: Explanation) -> Reasons:
    """Explains one finding of a classification, of which ``numbers`` are the probabilities, or one segment."""
    upright = straighten(volume)
    taken = volume if upright is None else upright.volume
    index = settings.of - 1 if settings.of else int(np.argmax(numbers)) if numbers else 0
    data, images = prepare(model, taken)
    images = images.detach().clone()
    state = torch.get_rng_state()
    try:
        torch.manual_seed(settings.seed)
        subject = subject_of(model, images, index)
        if isinstance(subject.network, Painted) and not bool(subject.network.painted[0, index].any()):
            return _none(model, index, settings, "nothing was found that could be explained")
        found = saliency(subject, settings)
        scores = examine(subject, found, settings)
    finally:
        torch.set_rng_state(state)
    problem = scores.problem(settings.faithfulness)
    if problem:
        return _none(model, index, settings, problem, scores)
    affine = LPS_TO_RAS @ np.asarray(data["image"].affine, np.float64)
    seen = _on_grid(found, affine, taken)
    values = seen if upright is None else upright.back(seen)
    explained = _explained(model, index, settings, scores, shown=True)
    return Reasons(explained=explained, maps=(_map(values, explained),))


def sentence(found: Explained) -> str:
    """What a reader must know of an explanation."""
    name = f"{NAMES[found.method]} for {found.of.meaning}"
    if not found.shown:
        return f"No explanation is given ({name}): {found.reason}."
    scores = found.scores
    return (
        f"{name} is an {NOT_A_FINDING}: deletion {scores['deletion']:.2f} (random order {scores['deletion_random']:.2f}), "
        f"insertion {scores['insertion']:.2f} ({scores['insertion_random']:.2f}), "
        f"likeness to maps of random networks {scores['alike']:.2f}."
    )


def _none(model: Model, index: int, settings: Explanation, reason: str, scores: Scores | None = None) -> Reasons:
    explained = _explained(model, index, settings, scores, shown=False, reason=reason)
    return Reasons(explained=explained, maps=())


def _explained(
    model: Model, index: int, settings: Explanation, scores: Scores | None, *, shown: bool, reason: str = ""
) -> Explained:
    output = model.manifest.output
    if output.findings:
        of = output.findings[index].name.code()
    else:
        segment = output.segments[index]
        of = Code(value=segment.type.value, scheme=segment.type.scheme, meaning=segment.label)
    rounded = {} if scores is None else {name: round(value, 4) for name, value in asdict(scores).items()}
    return Explained(method=settings.method, of=of, shown=shown, reason=reason, scores=rounded)


def _on_grid(found: Map, affine: NDArray[np.float64], volume: Volume) -> NDArray[np.float32]:
    """Between its voxels linear, outside of what the network saw 0; the largest is 1."""
    moved = regrid(found[None], affine, volume.affine, volume.voxels.shape, order=1)
    values = np.array(moved[0], np.float32)
    values /= max(float(values.max()), 1e-30)
    values[values < _LEAST] = 0
    return values


def _map(values: NDArray[np.generic], explained: Explained) -> QuantityMap:
    scores = explained.scores
    return QuantityMap(
        name="saliency",
        label=f"Saliency ({NOT_A_FINDING})",
        values=np.ascontiguousarray(values, np.float32),
        quantity=SALIENCY,
        unit=RATIO,
        lines=(
            f"{NAMES[explained.method]} for: {explained.of.meaning}",
            f"Deletion {scores['deletion']:.2f} (random {scores['deletion_random']:.2f})",
            f"Insertion {scores['insertion']:.2f} (random {scores['insertion_random']:.2f})",
            f"Likeness to random networks {scores['alike']:.2f}",
        ),
    )
