"""Explanations are about the network, or they are not shown: each way is tried on networks whose reasons are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gateway.bundle.explanation import Explanation
from gateway.domain.errors import BundleInvalid
from tests.support.bundles import write_bundle
from workers.explain.explanation import explain
from workers.explain.faithfulness import examine
from workers.explain.saliency import saliency
from workers.explain.subject import Painted, Subject
from workers.infer.model import open_model
from workers.load.volume import Volume

BLOCK = (slice(10, 14), slice(2, 6), slice(2, 6))  # what decides


class Bright(nn.Module):
    """Answers by how much is brighter than 1; of the other features, which see the rest, the answer knows nothing."""

    def __init__(self, *, forgetful: bool = True) -> None:
        super().__init__()
        self.look = nn.Conv3d(1, 4, 1)
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            if forgetful:
                self.look.weight.copy_(torch.tensor([1.0, -0.8, 0.6, -0.2]).reshape(4, 1, 1, 1, 1))
                self.look.bias.copy_(torch.tensor([-1.0, 0.9, 0.7, 0.5]))
                self.head.weight.copy_(torch.tensor([[60.0, 0.01, -0.01, 0.02], [-60.0, 0.0, 0.02, 0.01]]))
                self.head.bias.copy_(torch.tensor([-1.5, 0.0]))
            else:  # shuffled, every weight is what it was
                self.look.weight.fill_(1.0)
                self.look.bias.fill_(-1.0)
                self.head.weight.fill_(20.0)
                self.head.bias.fill_(-1.5)

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.head(torch.relu(self.look(images)).mean((2, 3, 4)))
        return pooled


def subject(network: nn.Module | None = None) -> Subject:
    """Sixteen voxels along each axis: texture, and a bright block in a corner."""
    images = torch.from_numpy(np.random.default_rng(3).uniform(0.2, 0.9, (1, 1, 16, 16, 16)).astype(np.float32))
    images[(0, 0, *BLOCK)] += 3
    return Subject(network=(network or Bright()).eval(), images=images, index=0, exclusive=False)


METHODS = {
    "gradcam": {"layer": "look"},
    "gradcam++": {"layer": "look"},
    "occlusion": {"mask": 4},
    "integrated_gradients": {},
    "shap": {"faithfulness": {"alike": 0.7}},  # what multiplies by the images is always somewhat like them
}


@pytest.mark.parametrize("method", METHODS)
def test_every_way_marks_what_decides_and_passes_the_check(method: str) -> None:
    asked = Explanation.model_validate({"method": method, "baseline": "minimum", **METHODS[method]})
    found = saliency(subject(), asked)
    inside = np.zeros(found.shape, bool)
    inside[BLOCK] = True
    assert found.shape == (16, 16, 16) and found.min() >= 0
    assert found[inside].mean() > 5 * found[~inside].mean()
    scores = examine(subject(), found, asked)
    assert scores.problem(asked.faithfulness) == ""
    assert scores.deletion < scores.deletion_random < scores.insertion_random < scores.insertion
    assert examine(subject(), found, asked) == scores  # a seed decides


def test_gradients_along_the_way_add_up_to_the_answer() -> None:
    """Completeness (Sundararajan et al. 2017): here nothing speaks against it, so that nothing is cut off."""
    asked = Explanation(method="integrated_gradients", baseline="minimum", samples=200)
    it = subject()
    with torch.no_grad():
        difference = it.network(it.images)[0, 0] - it.network(it.without("minimum"))[0, 0]
    assert saliency(it, asked).sum() == pytest.approx(float(difference), rel=0.02)


def test_a_map_of_something_else_is_not_shown() -> None:
    asked = Explanation(method="gradcam", layer="look", baseline="minimum")
    elsewhere = np.ascontiguousarray(saliency(subject(), asked)[::-1, ::-1])
    assert "no more than taking out anything" in examine(subject(), elsewhere, asked).problem(asked.faithfulness)


def test_a_map_that_does_not_need_the_weights_is_not_shown() -> None:
    """Shuffling changes nothing of this network, as it would change nothing of an edge detector."""
    it = subject(Bright(forgetful=False))
    asked = Explanation(method="gradcam", layer="look", baseline="minimum")
    scores = examine(it, saliency(it, asked), asked)
    assert scores.alike == pytest.approx(1)
    assert "random weights" in scores.problem(asked.faithfulness)


def test_nothing_to_take_out_is_nothing_to_explain() -> None:
    asked = Explanation(method="gradcam", layer="look")
    flat = Subject(network=Bright(), images=torch.ones(1, 1, 8, 8, 8), index=0, exclusive=False)
    assert examine(flat, saliency(flat, asked), asked).problem(asked.faithfulness)


def test_a_segment_is_explained_by_its_mean_logit_where_it_was_painted() -> None:
    """With a channel for what is none of the segments, and without one."""
    logits = torch.zeros(1, 3, 4, 4, 4)
    logits[0, 1, :2], logits[0, 2, 2:] = 4.0, 6.0
    for shown, segments in ((logits, 2), (logits[:, 1:], 2)):
        network = Painted(_Constant(shown), torch.zeros(1, 1, 4, 4, 4), segments)
        assert network.painted[0, 0, :2].all() and not network.painted[0, 0, 2:].any()
        assert network(torch.zeros(1, 1, 4, 4, 4))[0, 1] == pytest.approx(6.0, abs=0.8)


class _Constant(nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, _: Tensor) -> Tensor:
        return self._logits


def test_a_bundle_is_asked_why_and_says_why_it_gives_no_map(tmp_path: Path) -> None:
    """The network of this bundle is its input: whatever the weights are, the map is the image."""
    bundle = write_bundle(tmp_path / "bundle", explanation={"method": "occlusion", "mask": 4, "baseline": "minimum"})
    voxels = np.random.default_rng(0).uniform(0, 400, (8, 20, 20)).astype(np.float32)
    voxels[2:5, 4:14, 4:14] = 1000
    volume = Volume(voxels=voxels, affine=np.diag([3.0, 1.0, 1.0, 1.0]), headers=(None,) * 8)
    model = open_model(bundle)
    assert model.manifest.explanation is not None
    reasons = explain(model, volume, (), model.manifest.explanation)
    assert (reasons.explained.shown, reasons.maps, reasons.explained.of.meaning) == (False, (), "Bright")
    assert reasons.sentence.startswith("No explanation is given (Occlusion sensitivity for Bright): ")


def test_a_layer_that_is_not_there_refuses_the_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", explanation={"method": "gradcam", "layer": "nowhere"})
    with pytest.raises(BundleInvalid) as refusal:
        open_model(bundle)
    assert refusal.value.code == "no_layer"
