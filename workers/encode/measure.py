"""What is measured on a label volume. A volume is a count of voxels times the volume of one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.domain.messages import MeasurementResult
from gateway.manifest import Manifest, MeasurementSpec
from workers.load.masks import Labels, Masks
from workers.load.volume import Volume

_MM3_PER_UNIT = {"mm3": 1.0, "mL": 1000.0, "ml": 1000.0, "cm3": 1000.0}  # UCUM


def measure(labels: Labels, volume: Volume, manifest: Manifest) -> tuple[MeasurementResult, ...]:
    """Every quantity the manifest asks for, in its order and unit; a segment that is not there measures 0.

    ``labels`` are on the volume's grid. Slices that were interpolated over a gap count:
    the tissue is there although its image is missing.
    """
    masks = Masks(labels)
    return tuple(_volume_of(spec, masks.total(spec.segment), volume) for spec in manifest.output.measurements)


def voxel_volume(affine: NDArray[np.float64]) -> float:
    """Volume of one voxel in mm3: the determinant of the index-to-patient matrix.

    Not the product of spacings from the header: Slice Thickness is not the distance between slices, and a sheared stack
    (gantry tilt) has less volume than its edges suggest.
    """
    return float(abs(np.linalg.det(affine[:3, :3])))


def _volume_of(spec: MeasurementSpec, voxels: int, volume: Volume) -> MeasurementResult:
    value = voxels * voxel_volume(volume.affine) / _MM3_PER_UNIT[spec.unit.value]
    return MeasurementResult(name=spec.name.code(), value=value, unit=spec.unit.code(), segment=spec.segment)
