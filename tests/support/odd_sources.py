"""Sources as scanners and archives really write them, odd ones too: the same bright body in each, for the tests of a whole job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import DSfloat

from tests.support.result_set import AXIAL, frame, oblique
from tests.support.series import Change, write_series

SHAPE = (7, 32, 40)


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A series and how it is written; ``code`` of the refusal where it must not be taken."""

    affine: NDArray[np.float64] = field(default_factory=AXIAL.copy)
    shape: tuple[int, int, int] = SHAPE
    modality: str = "CT"
    options: dict[str, Any] = field(default_factory=dict)
    stored: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda values: values
    change: Change | None = None
    after: Callable[[list[Path]], list[Path]] = lambda paths: paths
    code: str = ""
    exact: bool = True  # whether what is bright comes back to the voxel; a tilted stack is interpolated
    said: str = ""  # a part of what the result says of it


def body(shape: tuple[int, int, int], seed: int = 7) -> NDArray[np.int64]:
    """Values from 0 to 1000: a body off every middle that is above 600, all else below 400."""
    values = np.random.default_rng(seed).integers(0, 400, shape)
    grid = np.stack(
        np.meshgrid(*(np.linspace(-1, 1, size) if size > 1 else np.zeros(1) for size in shape), indexing="ij")
    )
    inside = np.linalg.norm(grid - np.reshape((-0.15, 0.2, -0.2), (3, 1, 1, 1)), axis=0) < 0.6
    values[inside] += 600
    values.flat[0] = 1000  # so that no scaling puts half of the largest value elsewhere
    values.flat[1] = 0
    return values


def write(odd: Odd, directory: Path) -> list[Path]:
    """The files of a source."""
    paths = write_series(
        directory, odd.stored(body(odd.shape)), odd.affine, modality=odd.modality, change=odd.change, **odd.options
    )
    return odd.after(paths)


def _long_numbers(_: int, dataset: Dataset) -> None:
    """Decimal strings longer than the 16 characters that the standard allows, as some archives write them."""
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        values = [float(value) for value in dataset[keyword].value]
        dataset[keyword].value = [DSfloat(f"{value:.17f}", validation_mode=0) for value in values]


def _rounded_cosines(index: int, dataset: Dataset) -> None:
    """Each slice's cosines rounded anew."""
    values = np.array(dataset.ImageOrientationPatient, float) + (index % 2) * 2e-7
    dataset.ImageOrientationPatient = [f"{value:.6f}" for value in values]


def _no_thickness(_: int, dataset: Dataset) -> None:
    dataset.SliceThickness = None
    dataset.SpacingBetweenSlices = "-3.0"


def _of_pet(index: int, dataset: Dataset) -> None:
    """A slope of its own for each slice, so that the same activity is another number in each."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
    dataset.Modality, dataset.Units, dataset.RescaleType = "PT", "BQML", "BQML"
    slope = 1 + index / 4
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, 0
    dataset.PixelData = np.rint(np.frombuffer(dataset.PixelData, "<u2") * 40 / slope).astype("<u2").tobytes()


def _twelve_bits(_: int, dataset: Dataset) -> None:
    dataset.BitsStored, dataset.HighBit = 12, 11


def _overlay_in_high_bits(index: int, dataset: Dataset) -> None:
    """Twelve bits stored, and somebody's drawing in the four above them."""
    _twelve_bits(index, dataset)
    values = np.frombuffer(dataset.PixelData, "<u2") & 0xFFF
    dataset.PixelData = (values | np.where(np.arange(len(values)) % 3, 0xF000, 0).astype("<u2")).tobytes()


def _eight_bits(_: int, dataset: Dataset) -> None:
    values = np.frombuffer(dataset.PixelData, "<u2") // 4
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = values.astype(np.uint8).tobytes()
    dataset["PixelData"].VR = "OB"


def _thirty_two_bits(_: int, dataset: Dataset) -> None:
    values = np.frombuffer(dataset.PixelData, "<u2").astype("<u4") * 70_000
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit = 31
    dataset.PixelData = values.tobytes()


def _one_bit(_: int, dataset: Dataset) -> None:
    values = np.frombuffer(dataset.PixelData, "<u2") > 500
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    dataset.PixelData = np.packbits(values, bitorder="little").tobytes()


def _captured(_: int, dataset: Dataset) -> None:
    """Pictures of a screen: nothing says where in the patient."""
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)


def enhanced(
    paths: list[Path], *, slopes: bool = False, positions: int = 1, second_stack: bool = False, syntax: str = ""
) -> list[Path]:
    """The series as one Enhanced MR image, its frames in no order; perhaps each with a slope of its own, or several times."""
    singles = [dcmread(path) for path in paths]
    order = [int(n) for n in np.random.default_rng(9).permutation(len(singles) * positions)]
    result = singles[0]
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = "2.25.123456"
    images, groups, pixels = [dcmread(path) for path in paths], [], []
    for number in order:
        index, time = number % len(images), number // len(images)
        slope = (1 + index % 3) if slopes else 1
        turned = second_stack and index >= len(images) // 2
        groups.append(_groups(images[index], slope, time + 1, turned=turned))
        pixels.append(np.frombuffer(images[index].PixelData, "<u2") // slope)
    result.NumberOfFrames = len(order)
    result.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    result.PerFrameFunctionalGroupsSequence = Sequence(groups)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(result, keyword)
    result.PixelData = np.concatenate(pixels).tobytes()
    result.BodyPartExamined = "BRAIN"
    if syntax:
        result.compress(syntax, generate_instance_uid=False)
    for path in paths[1:]:
        path.unlink()
    result.save_as(paths[0], enforce_file_format=True)
    return paths[:1]


def _groups(image: Dataset, slope: float, time: int, *, turned: bool) -> Dataset:
    group = Dataset()
    for sequence, keywords in (
        ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness")),
        ("PlanePositionSequence", ("ImagePositionPatient",)),
        ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
    ):
        item = Dataset()
        for keyword in keywords:
            item[keyword] = image[keyword]
        setattr(group, sequence, Sequence([item]))
    if turned:
        group.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    transformation = Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = slope, 0, "US"
    group.PixelValueTransformationSequence = Sequence([transformation])
    content = Dataset()
    content.TemporalPositionIndex, content.StackID, content.InStackPositionNumber = time, "1", 1
    group.FrameContentSequence = Sequence([content])
    return group


def _without_functional_groups(paths: list[Path]) -> list[Path]:
    found = enhanced(paths)
    dataset = dcmread(found[0])
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(found[0])
    return found


SOURCES = {
    "feet first, prone": Odd(affine=frame((-1, 0, 0), (0, -1, 0), (0, 0, -1))),
    "decubitus": Odd(affine=frame((0, 1, 0), (-1, 0, 0), (0, 0, 1))),
    "left-handed": Odd(affine=frame((0.8, 0.6, 0), (-0.6, 0.8, 0), (0, 0, -1))),
    "oblique": Odd(affine=oblique(), modality="MR"),
    "pixels that are not square": Odd(affine=frame((1, 0, 0), (0, 1, 0), spacing=(2.0, 2.2, 0.4))),
    "one row": Odd(shape=(7, 1, 40)),
    "one column": Odd(affine=frame((1, 0, 0), (0, 1, 0), spacing=(2.0, 0.8, 1.5)), shape=(7, 32, 1)),
    "decimal strings that are too long": Odd(affine=oblique(), change=_long_numbers),
    "cosines that are rounded anew": Odd(affine=oblique(), change=_rounded_cosines),
    "no thickness, negative spacing": Odd(change=_no_thickness, modality="MR"),
    "far from the origin": Odd(affine=frame((1, 0, 0), (0, 1, 0), origin=(8123.4567, -9234.5678, 7345.6789))),
    "implicit": Odd(options={"transfer_syntax": ImplicitVRLittleEndian}),
    "big endian": Odd(options={"transfer_syntax": ExplicitVRBigEndian}),
    "deflated": Odd(options={"transfer_syntax": DeflatedExplicitVRLittleEndian}),
    "RLE": Odd(options={"transfer_syntax": RLELossless}),
    "JPEG-LS, signed": Odd(
        options={"transfer_syntax": JPEGLSLossless, "signed": True, "intercept": 1024}, stored=lambda v: v - 1024
    ),
    "JPEG 2000, 12 bit signed": Odd(
        options={"transfer_syntax": JPEG2000Lossless, "signed": True, "intercept": 1024},
        stored=lambda v: v - 1024,
        change=_twelve_bits,
    ),
    "12 bit signed": Odd(options={"signed": True, "intercept": 1024}, stored=lambda v: v - 1024, change=_twelve_bits),
    "overlay in high bits": Odd(change=_overlay_in_high_bits),
    "8 bit": Odd(change=_eight_bits),
    "32 bit": Odd(change=_thirty_two_bits),
    "PET with slopes of its own": Odd(change=_of_pet, modality="PT"),
    "shown inverted": Odd(modality="MR", options={"attributes": {"PhotometricInterpretation": "MONOCHROME1"}}),
    "padding": Odd(
        modality="MR",
        options={"signed": True, "attributes": {"PixelPaddingValue": -2000}},
        stored=lambda v: np.where((np.hypot(*np.mgrid[-16:16, -20:20]) > 20.5) & (v < 1000), -2000, v),
    ),
    "two spacings": Odd(options={"places": (0, 1, 2, 3, 5, 7, 9)}, said="unevenly spaced, 3.00 to 6.00 mm"),
    "uneven, tilted": Odd(
        affine=frame((1, 0, 0), (0, 1, 0), (0, 0.3, 1)),
        options={"places": (0, 1, 2.3, 3.6, 4.7, 6, 7)},
        exact=False,
        said="gantry",
    ),
    "enhanced, frames in no order": Odd(affine=oblique(), modality="MR", after=enhanced),
    "enhanced, slopes by frame": Odd(modality="MR", after=lambda paths: enhanced(paths, slopes=True)),
    "enhanced, compressed": Odd(modality="MR", after=lambda paths: enhanced(paths, syntax=JPEG2000Lossless)),
    "enhanced, two stacks": Odd(modality="MR", after=lambda p: enhanced(p, second_stack=True), code="orientation"),
    "enhanced, two times": Odd(modality="MR", after=lambda p: enhanced(p, positions=2), code="duplicate_position"),
    "multi-frame without groups": Odd(modality="MR", after=_without_functional_groups, code="multiframe"),
    "secondary capture": Odd(change=_captured, code="geometry"),
    "1 bit": Odd(change=_one_bit, code="undecodable"),
}
