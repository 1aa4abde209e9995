"""Trains the network of `tests/bundles/tissue_fusion` on simulated images, in minutes on a CPU, and says how good it is.

    python -m tests.bundles.train_tissue_fusion [--steps 500]

Writes models/model.safetensors and prints the metrics that stand in docs/README.md. The template is one average brain, so
the tissues are only ever those of one anatomy; spots are also judged on the head of a person that training has not seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.ndimage import map_coordinates

from tests.support.contrasts import Brain, Image, flair, moved, resampled, somebody, spots, template

BUNDLE = Path(__file__).parent / "tissue_fusion"
PATCH = 48
SPACING = 2.0


def network() -> UNet:
    """As configs/inference.json has it."""
    return UNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=4,
        channels=(8, 16, 32),
        strides=(2, 2),
        num_res_units=1,
        norm="BATCH",
    )


def some_spots(brain: Brain, random: np.random.Generator) -> NDArray[np.bool_]:
    """One to eight balls of 3 to 8 mm in the brain."""
    inside = np.argwhere((brain.tissue == 2) if brain.tissue.any() else brain.t1 > 0.75)
    chosen = inside[random.integers(0, len(inside), random.integers(1, 9))]
    places = chosen @ brain.affine[:3, :3].T + brain.affine[:3, 3]
    return spots(brain.t1.shape, brain.affine, places, random.uniform(3.0, 8.0, len(places)).tolist())


def disturbed(image: Image, random: np.random.Generator) -> Image:
    """Noise, an uneven coil, another scale of brightness."""
    knots = random.uniform(-0.15, 0.15, (4, 4, 4)).astype(np.float32)
    at = [np.linspace(0, 3, n) for n in image.shape]
    field = 1 + map_coordinates(knots, np.meshgrid(*at, indexing="ij"), order=1)
    noisy = image ** random.uniform(0.8, 1.25) * field + random.normal(0, random.uniform(0, 0.04), image.shape)
    return (np.clip(noisy, 0, None) * (image > 0)).astype(np.float32)


def normalised(image: Image) -> Image:
    """As NormalizeIntensityd(nonzero=True) does."""
    there = image != 0
    if not there.any():
        return image
    result = image.copy()
    result[there] = (image[there] - image[there].mean()) / max(float(image[there].std()), 1e-6)
    return result


def example(brain: Brain, random: np.random.Generator, *, turned: bool = True) -> tuple[Image, NDArray[np.int64]]:
    """Two channels and labels; in a quarter of the examples the second contrast is missing, and so are its spots."""
    found = some_spots(brain, random)
    second = flair(brain.t1, found)
    pictures = [brain.t1, second, brain.tissue.astype(np.float32), found.astype(np.float32)]
    if turned:
        middle = np.eye(4)
        middle[:3, 3] = (np.array(brain.t1.shape) - 1) / 2
        to = middle @ moved(random.uniform(-12, 12, 3), random.uniform(-3, 3, 3)) @ np.linalg.inv(middle)
        to[:3, :3] *= random.uniform(0.9, 1.1)
        off = moved(random.uniform(-1, 1, 3), random.uniform(-0.4, 0.4, 3))  # registration is never perfect
        shape = brain.t1.shape
        pictures = [
            resampled(each, np.eye(4), to @ off if number == 1 else to, shape, order=0 if number > 1 else 1)
            for number, each in enumerate(pictures)
        ]
    labels = np.where(pictures[3] > 0.5, 3, pictures[2]).astype(np.int64)
    channels = [normalised(disturbed(pictures[0], random)), normalised(disturbed(pictures[1], random))]
    if random.random() < 0.25:
        channels[1] = np.zeros_like(channels[1])
        labels = pictures[2].astype(np.int64)
    return np.stack(channels), labels


def train(steps: int, seed: int = 0) -> UNet:
    """Stochastic gradient descent on patches."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    net, brain = network(), template(SPACING)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=6e-3, total_steps=steps)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    net.train()
    kept: list[tuple[Image, NDArray[np.int64]]] = []
    for step in range(steps):
        if step % 10 == 0:
            kept = [example(brain, random) for _ in range(2)]
        patches = []
        for image, labels in kept:
            corner = [int(random.integers(0, max(n - PATCH, 0) + 1)) for n in labels.shape]
            if random.random() < 0.6 and (labels == 3).any():  # spots are rare
                at = np.argwhere(labels == 3)[random.integers(0, int((labels == 3).sum()))]
                corner = [int(np.clip(c - PATCH // 2, 0, n - PATCH)) for c, n in zip(at, labels.shape, strict=True)]
            cut = tuple(slice(start, start + PATCH) for start in corner)
            axis = tuple(a for a in range(3) if random.random() < 0.2)
            patches.append((np.flip(image[(slice(None), *cut)], [a + 1 for a in axis]), np.flip(labels[cut], axis)))
        inputs = torch.from_numpy(np.stack([p for p, _ in patches]).copy())
        wanted = torch.from_numpy(np.stack([q for _, q in patches]).copy())[:, None]
        optimiser.zero_grad()
        loss = loss_of(net(inputs), wanted)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(step, round(loss.item(), 4), flush=True)
    return net.eval()


def judge(net: UNet, brain: Brain, seeds: range, *, second: bool = True) -> dict[str, float]:
    """Mean Dice of each label over examples of one brain."""
    found: dict[str, list[float]] = {name: [] for name in ("grey", "white", "spot")}
    for seed in seeds:
        random = np.random.default_rng(seed)
        there = some_spots(brain, random)
        channels = [disturbed(each, random) for each in (brain.t1, flair(brain.t1, there))]
        image = np.stack([normalised(each) for each in channels])
        if not second:
            image[1] = 0
        room = [(0, 0), *((0, -n % 4) for n in there.shape)]
        with torch.inference_mode():
            scores = net(torch.from_numpy(np.pad(image, room))[None])[0]
        labels = scores.argmax(0).numpy()[tuple(slice(0, n) for n in there.shape)]
        wanted = np.where(there, 3, brain.tissue)
        for label, name in enumerate(found, start=1):
            one, other = labels == label, wanted == label
            if other.any():
                found[name].append(2.0 * float((one & other).sum()) / float(one.sum() + other.sum()))
    return {name: round(float(np.mean(values)), 3) for name, values in found.items() if values}


def on_grid(brain: Brain, spacing: float) -> Brain:
    """Another brain at the spacing that the network knows."""
    shape = np.ceil(np.array(brain.t1.shape) * np.linalg.norm(brain.affine[:3, :3], axis=0) / spacing).astype(int)
    affine = brain.affine.copy()
    affine[:3, :3] *= spacing / np.linalg.norm(brain.affine[:3, :3], axis=0)
    image = resampled(brain.t1, brain.affine, affine, shape)
    return Brain(t1=image, tissue=np.zeros(image.shape, np.uint8), affine=affine)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bundles.train_tissue_fusion")
    parser.add_argument("--steps", type=int, default=500)
    net = train(parser.parse_args().steps)
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, BUNDLE / "models/model.safetensors")
    seeds = range(1000, 1005)
    print(
        json.dumps(
            {
                "template": judge(net, template(SPACING), seeds),
                "template, second contrast missing": judge(net, template(SPACING), seeds, second=False),
                "somebody": judge(net, on_grid(somebody(), SPACING), seeds),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
