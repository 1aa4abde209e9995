"""Pixel data of one image to values in the modality's units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.domain.errors import InputRefused
from workers.load.part10 import BROKEN

_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_PADDING = b"\0\xff"
_AS_THEY_LIE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_EXACT = 2**23
_END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000


def modality_values(dataset: Dataset) -> NDArray[np.float32]:
    """Decodes an image and rescales it: (rows, columns).

    Applies this image's own Rescale Slope and Intercept or Modality LUT (PS3.3 C.11.1). Raises InputRefused: `undecodable`
    where the pixel data is broken, too short or of a kind nobody can decode, `photometric` where it is not MONOCHROME2.
    """
    try:
        _check_description(dataset)
        values = _rescaled(dataset, _stored(dataset))
    except BROKEN as error:
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", "")
        name = getattr(syntax, "name", "") or "no transfer syntax"
        raise _undecodable(dataset, f"its pixel data ({name}) cannot be decoded, {type(error).__name__}") from None
    if values.shape != (dataset.Rows, dataset.Columns):
        raise _undecodable(dataset, "its pixel data is not Rows x Columns")
    if not np.isfinite(values).all():
        raise _undecodable(dataset, "its rescaled values are not finite numbers")
    return values


def _stored(dataset: Dataset) -> NDArray[np.generic]:
    """Stored values. Ordinary ones, whole bytes in little endian, are looked at where they lie; pydicom copies them twice."""
    bits = dataset.BitsAllocated
    if dataset.file_meta.TransferSyntaxUID in _AS_THEY_LIE and bits in (8, 16):
        signed = bool(dataset.PixelRepresentation)
        shape = dataset.Rows, dataset.Columns
        stored = np.frombuffer(dataset.PixelData, f"<{'i' if signed else 'u'}{bits // 8}", count=shape[0] * shape[1])
        top = 1 << (dataset.BitsStored - signed)
        if dataset.BitsStored == bits or (stored.max() < top and stored.min() >= (-top if signed else 0)):
            return stored.reshape(shape)
    return pixel_array(dataset)


def _check_description(dataset: Dataset) -> None:
    """Everything that can be known before memory is taken."""
    photometric = str(dataset.PhotometricInterpretation)
    if photometric != "MONOCHROME2" or dataset.SamplesPerPixel != 1:
        raise InputRefused(f"images are {photometric}, the models take MONOCHROME2 only", code="photometric")
    if "PixelData" not in dataset:
        raise _undecodable(dataset, "it has no Pixel Data")
    bits = dataset.BitsAllocated
    if bits not in (8, 16, 32) or not 1 <= dataset.BitsStored <= bits or dataset.HighBit != dataset.BitsStored - 1:
        raise _undecodable(dataset, "its Bits Allocated, Bits Stored and High Bit make no sense")
    expected = dataset.Rows * dataset.Columns * (bits // 8)
    if expected == 0:
        raise _undecodable(dataset, "it has no rows or no columns")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_fragments(dataset)
        return
    found = len(dataset.PixelData)
    if not expected <= found < 2 * expected:  # padding at the end is common, a second frame is not padding
        raise _undecodable(dataset, f"it has {found} bytes of pixel data where its header says {expected}")


def _check_fragments(dataset: Dataset) -> None:
    """One frame, and complete: decoders of JPEG and JPEG-LS make up what a cut-off codestream lacks."""
    frames = list(generate_frames(dataset.PixelData, number_of_frames=1))
    if len(frames) != 1:
        raise _undecodable(dataset, "its pixel data is not one frame")
    jpeg = dataset.file_meta.TransferSyntaxUID.startswith(_JPEG_FAMILY)
    if jpeg and not frames[0].rstrip(_PADDING).endswith(_END_OF_IMAGE):
        raise _undecodable(dataset, "its compressed pixel data is cut off")


def _rescaled(dataset: Dataset, stored: NDArray[np.generic]) -> NDArray[np.float32]:
    if dataset.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if slope == 0:
        raise _undecodable(dataset, "its Rescale Slope is zero")
    if slope == 1 and intercept == round(intercept) and abs(intercept) < _EXACT and stored.dtype.itemsize <= 2:
        return stored.astype(np.float32) + np.float32(intercept)  # whole numbers that single precision holds
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)


def _number(dataset: Dataset, keyword: str, absent: float) -> float:
    value = dataset.get(keyword)
    return absent if value is None or value == "" else float(value)


def _undecodable(dataset: Dataset, what: str) -> InputRefused:
    return InputRefused(f"image {dataset.get('SOPInstanceUID', '')} is refused: {what}", code="undecodable")
