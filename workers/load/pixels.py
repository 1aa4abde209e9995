"""Pixel data of images to values in the modality's units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from gateway.domain.errors import InputRefused
from workers.load.alike import Alike
from workers.load.part10 import BROKEN, PLAIN

_JPEG_FAMILY = "1.2.840.10008.1.2.4."
_PADDING = b"\0\xff"
_EXACT = 2**23
_MEASURED = ("CT", "MR", "PT", "NM")
"""Modalities whose values mean the same whichever end of them is shown bright."""
_END_OF_IMAGE = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_DESCRIPTION = (
    "PhotometricInterpretation", "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit", "Modality",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How stored values are laid out and what they mean; most images of a series share one."""

    shape: tuple[int, int]
    bits: int  # allocated
    stored: int  # bits stored
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None  # least and largest stored value of pixels that were not measured

    @property
    def whole(self) -> bool:
        """Whether rescaled values are whole numbers that single precision holds."""
        exact = self.intercept == round(self.intercept) and abs(self.intercept) < _EXACT
        return self.slope == 1 and exact and self.bits <= 16


class ModalityValues:
    """Decodes the images of one series and rescales them; what they have in common is looked at once."""

    def __init__(self) -> None:
        self._form = Alike(_form, _DESCRIPTION)

    def write(self, dataset: Dataset, values: NDArray[np.float32], padding: NDArray[np.bool_] | None = None) -> None:
        """Writes an image's values to ``values``, (rows, columns), in the modality's units; to ``padding`` which of its pixels
        have its Pixel Padding Value, or lie between that and its Range Limit (PS3.3 C.7.5.1.1.2: stored values).

        Applies this image's own Rescale Slope and Intercept or Modality LUT (PS3.3 C.11.1). Raises InputRefused: `undecodable`
        where the pixel data is broken, too short or of a kind nobody can decode, `photometric` where it is not of one channel, or
        its values say how bright it is to be shown.
        """
        try:
            form = self._form(dataset)
            _check_pixels(dataset, form)
            stored = _stored(dataset, form)
            if stored.shape != values.shape:
                raise _undecodable(dataset, "its pixel data is not Rows x Columns")
            if not _rescale(dataset, form, stored, values):
                raise _undecodable(dataset, "its rescaled values are not finite numbers")
            if padding is not None and form.padding is not None:
                padding[:] = (stored >= form.padding[0]) & (stored <= form.padding[1])
        except BROKEN as error:
            syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", "")
            name = getattr(syntax, "name", "") or "no transfer syntax"
            raise _undecodable(dataset, f"its pixel data ({name}) cannot be decoded, {type(error).__name__}") from None


def _form(dataset: Dataset) -> _Form:
    """Everything that can be known before memory is taken."""
    photometric = str(dataset.PhotometricInterpretation)
    inverted = photometric == "MONOCHROME1" and dataset.get("Modality") in _MEASURED  # shown inverted, measured as ever
    if not (photometric == "MONOCHROME2" or inverted) or dataset.SamplesPerPixel != 1:
        raise InputRefused(f"images are {photometric}, the models take MONOCHROME2 only", code="photometric")
    bits = dataset.BitsAllocated
    if bits not in (8, 16, 32) or not 1 <= dataset.BitsStored <= bits or dataset.HighBit != dataset.BitsStored - 1:
        raise _undecodable(dataset, "its Bits Allocated, Bits Stored and High Bit make no sense")
    if not dataset.Rows * dataset.Columns:
        raise _undecodable(dataset, "it has no rows or no columns")
    return _Form(
        shape=(dataset.Rows, dataset.Columns),
        bits=bits,
        stored=dataset.BitsStored,
        signed=bool(dataset.PixelRepresentation),
        slope=_number(dataset, "RescaleSlope", 1.0),
        intercept=_number(dataset, "RescaleIntercept", 0.0),
        padding=_padding(dataset, signed=bool(dataset.PixelRepresentation)),
    )


def _padding(dataset: Dataset, *, signed: bool) -> tuple[int, int] | None:
    """Between what stored values are padding. Both attributes are 16 bit numbers of the pixels' own kind, whatever VR they have."""
    found = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = dataset.get(keyword)
        if isinstance(value, bytes):  # "US or SS" of Implicit VR
            value = int.from_bytes(value[:2], "little" if dataset.original_encoding[1] else "big") if value else None
        if isinstance(value, int):
            bits = value & 0xFFFF
            found.append(bits - 0x10000 if signed and bits >= 0x8000 else bits)
        elif keyword == "PixelPaddingValue":
            return None
    return min(found), max(found)


def _check_pixels(dataset: Dataset, form: _Form) -> None:
    if "PixelData" not in dataset:
        raise _undecodable(dataset, "it has no Pixel Data")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_fragments(dataset)
        return
    expected, found = form.shape[0] * form.shape[1] * (form.bits // 8), len(dataset.PixelData)
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


def _stored(dataset: Dataset, form: _Form) -> NDArray[Any]:
    """Stored values. Ordinary ones, whole bytes in little endian, are looked at where they lie; pydicom copies them twice."""
    if dataset.file_meta.TransferSyntaxUID not in PLAIN:
        return pixel_array(dataset)
    if form.bits <= 16:
        kind = f"<{'i' if form.signed else 'u'}{form.bits // 8}"
        stored = np.frombuffer(dataset.PixelData, kind, count=form.shape[0] * form.shape[1])
        top = 1 << (form.stored - form.signed)
        if form.stored == form.bits or (stored.max() < top and (not form.signed or stored.min() >= -top)):
            return stored.reshape(form.shape)
    dataset.PixelData = bytes(dataset.PixelData)  # it was a view, which pydicom does not take
    return pixel_array(dataset)


def _rescale(dataset: Dataset, form: _Form, stored: NDArray[Any], values: NDArray[np.float32]) -> bool:
    """Whether all values are finite."""
    if "ModalityLUTSequence" in dataset and dataset.ModalityLUTSequence:
        values[:] = apply_modality_lut(stored, dataset)
    elif form.slope == 0:
        raise _undecodable(dataset, "its Rescale Slope is zero")
    elif form.whole:
        np.add(stored, np.float32(form.intercept), out=values, dtype=np.float32, casting="unsafe")
        return True
    else:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
            values[:] = stored.astype(np.float64) * form.slope + form.intercept
    return bool(np.isfinite(values).all())


def _number(dataset: Dataset, keyword: str, absent: float) -> float:
    value = dataset.get(keyword)
    return absent if value is None or value == "" else float(value)


def _undecodable(dataset: Dataset, what: str) -> InputRefused:
    return InputRefused(f"image {dataset.get('SOPInstanceUID', '')} is refused: {what}", code="undecodable")
