"""Enhanced multi-frame images, made from single-frame series by highdicom, and result sets on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from highdicom.legacy import LegacyConvertedEnhancedCTImage, LegacyConvertedEnhancedMRImage
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from tests.support.result_set import IDENTITY, balls, manifest, oblique
from tests.support.series import job_order, write_series
from workers.encode.measure import measure
from workers.encode.objects import encode
from workers.load.series import load

SHAPE = (6, 24, 32)


def enhanced(
    directory: Path, modality: str = "CT", syntax: str = ExplicitVRLittleEndian, **attributes: object
) -> tuple[Path, NDArray[np.int64]]:
    """One multi-frame image of an oblique series, and the stored values it was made from."""
    voxels = np.random.default_rng(5).integers(0, 1000, SHAPE)
    paths = write_series(
        directory / "single", voxels, oblique(), modality=modality, slope=2, intercept=-1000, attributes=attributes
    )
    kind = LegacyConvertedEnhancedCTImage if modality == "CT" else LegacyConvertedEnhancedMRImage
    image = kind([dcmread(path) for path in paths], "1.2.3.1", 5, "1.2.3.2", 1)
    (directory / "enhanced").mkdir()
    file = directory / "enhanced/image.dcm"
    if syntax != ExplicitVRLittleEndian:
        image.compress(syntax, generate_instance_uid=False)
    image.save_as(file)
    return file, voxels


def multiframe_results(directory: Path, modality: str = "CT") -> tuple[Any, ...]:
    """A result set on a multi-frame image, and what it was made from, as the gate takes them."""
    file, _ = enhanced(
        directory,
        modality,
        ExplicitVRLittleEndian,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Wang^XiaoDong=王^小東=",
    )
    contract = manifest(2)
    order = job_order([file], directory, directory / "result")
    volume, labels = load(order, contract), balls(SHAPE, 2)
    measured = measure(labels, volume, contract)
    objects = encode(volume, labels, measured, contract, IDENTITY, order)
    return objects, volume, labels, measured, contract, order
