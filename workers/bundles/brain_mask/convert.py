"""Makes the bundle's weights from the PyPI package deepbrain 0.1 (MIT), which ships them as a frozen TensorFlow graph.

pip install --no-deps deepbrain==0.1      (its dependency list would pull TensorFlow, which is not needed)
python -m workers.bundles.brain_mask.convert
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gateway.bundle.files import read_manifest
from gateway.domain.errors import BundleInvalid, ServiceUnavailable
from workers.bundles.brain_mask.graph import float_constants

BUNDLE = Path(__file__).parent
GRAPH_SHA256 = "6be50752ff151808dc7f8059fef39852759de8502d831949b40e991502225a2a"

CONVOLUTIONS = (
    "down.0.0",
    "down.0.2",
    "down.1.0",
    "down.1.2",
    "down.2.0",
    "down.2.2",
    "merge.0",
    "merge.1",
    "merge.2",
    "head",
)
"""What `conv3d`, `conv3d_1`, ... of the graph are called in `BrainUNet`."""

TRANSPOSED = ("up.0", "up.1", "up.2")
"""What `conv3d_transpose`, `conv3d_transpose_1`, ... are called."""


def prepare(bundle: Path = BUNDLE) -> Path:
    """Writes the weights into a bundle and returns their path; the same bytes every time.

    Raises ServiceUnavailable where deepbrain 0.1 is not installed or not the one that was examined, BundleInvalid
    where the manifest pins other weights.
    """
    (weights,) = read_manifest(bundle).weight_files
    data = save(state_dict(_graph()))
    if hashlib.sha256(data).hexdigest() != weights.sha256:
        raise BundleInvalid(f"{bundle.name}: the converted weights are not the ones that hilum.yaml pins")
    target = bundle / weights.file
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(data)
    return partial.replace(target)


def state_dict(graph: bytes) -> dict[str, NDArray[np.float32]]:
    """The graph's parameters under the names and in the axis order of `BrainUNet`."""
    constants = float_constants(graph)
    state = {}
    for number, name in enumerate(CONVOLUTIONS):
        source = f"conv3d_{number}" if number else "conv3d"
        state[f"{name}.weight"] = _turned(constants[f"{source}/kernel"])
        state[f"{name}.bias"] = constants[f"{source}/bias"]
    for number, name in enumerate(TRANSPOSED):
        source = f"conv3d_transpose_{number}" if number else "conv3d_transpose"
        state[f"{name}.weight"] = _turned(constants[f"{source}/kernel"])
    return state


def _turned(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """TensorFlow keeps channels last; (in, out) become (out, in), and (out, in) of a transposed kernel (in, out)."""
    return np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2))


def _graph() -> bytes:
    try:
        listed = files("deepbrain") or []
    except PackageNotFoundError:
        listed = []
    for file in listed:
        if file.name == "graph.pb":
            data = Path(str(file.locate())).read_bytes()
            if hashlib.sha256(data).hexdigest() != GRAPH_SHA256:
                raise ServiceUnavailable("the installed deepbrain is not version 0.1: its graph.pb is another one")
            return data
    raise ServiceUnavailable("the source of the weights is missing: pip install --no-deps deepbrain==0.1")


if __name__ == "__main__":
    print(prepare())
