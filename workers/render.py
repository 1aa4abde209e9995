"""The process that decodes pixels for DICOMweb: reads orders on standard input, one JSON line each, and answers so.

    {"do": "frames", "file": F, "output": O, "frames": [0, 5]}     values of frames, little endian, one after the other
    {"do": "instance", "file": F, "output": O}                     the instance in Explicit VR Little Endian
    {"do": "picture", "file": F, "output": O, "frames": [0], "format": "png", "quality": 90, "window": [40, 400],
     "size": [512, 512]}                                           one frame as a person sees it

    {"done": true}  or  {"refused": "one sentence"}

Pixel data comes from anybody: whoever starts this process limits its time (`gateway.web.pixels`); it limits its own memory.
"""

from __future__ import annotations

import json
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import ExplicitVRLittleEndian

from workers.child import take_wire
from workers.load.part10 import BROKEN

_MEMORY = 3 << 30  # bytes of private memory, beside libraries
_CPU = 3600  # seconds in its whole life
_WIDTH = {"OD": 8, "OV": 8, "OF": 4, "OL": 4, "OW": 2}  # bytes of one number
_LARGEST_FRAME = 512 << 20  # bytes of one decoded frame
_LARGEST_INSTANCE = 1 << 30  # bytes of all decoded frames together


class _Refused(Exception):
    """Why this cannot be done, in one sentence without anything out of the header."""


def answer(line: str) -> dict[str, Any]:
    """Does one order."""
    try:
        order = json.loads(line)
        _ORDERS[order["do"]](order)
    except _Refused as error:
        return {"refused": str(error)}
    except BROKEN as error:
        return {"refused": f"the pixel data cannot be decoded ({type(error).__name__})"}
    return {"done": True}


def _frames(order: dict[str, Any]) -> None:
    head = _head(order)
    with Path(order["output"]).open("wb") as output:
        # raw: colours as they are stored, as the metadata says.
        for frame in _decoded(order, head, raw=True):
            output.write(_pack(frame, head))


def _decoded(order: dict[str, Any], head: Dataset, *, raw: bool = False) -> Iterator[NDArray[Any]]:
    """The frames of an order, each (rows, columns) or (rows, columns, samples)."""
    if head.BitsAllocated > 1 or head.file_meta.TransferSyntaxUID.is_encapsulated:
        # In a deflated dataset no place is the one that it has in the file, and pydicom looks there.
        deflated = head.file_meta.TransferSyntaxUID.is_deflated
        source = dcmread(order["file"]) if deflated else order["file"]
        yield from iter_pixels(source, raw=raw, indices=order["frames"])
        return
    # pydicom 3.0 loses bits of frames that begin in the middle of a byte.
    packed, size = np.frombuffer(dcmread(order["file"]).PixelData, np.uint8), head.Rows * head.Columns
    for index in order["frames"]:
        first = index * size
        bits = np.unpackbits(packed[first // 8 : (first + size + 7) // 8], bitorder="little")
        yield bits[first % 8 : first % 8 + size].reshape(head.Rows, head.Columns)


def _pack(frame: NDArray[Any], head: Dataset) -> bytes:
    if head.BitsAllocated == 1:
        return np.packbits(frame.astype(bool).ravel(), bitorder="little").tobytes()
    if frame.ndim == 3 and head.get("PlanarConfiguration", 0) == 1:
        frame = frame.transpose(2, 0, 1)
    return frame.astype(frame.dtype.newbyteorder("<")).tobytes()


def _instance(order: dict[str, Any]) -> None:
    head = _head(order)
    if _frame_bytes(head) * _number_of_frames(head) > _LARGEST_INSTANCE:
        raise _Refused("the instance is too large to be decoded at once")
    dataset: Dataset = dcmread(order["file"])
    if dataset.file_meta.TransferSyntaxUID.is_compressed and dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.decompress(generate_instance_uid=False)
    elif not dataset.file_meta.TransferSyntaxUID.is_little_endian:
        dataset = _turned(dataset)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = b"\0" * 128
    dataset.save_as(order["output"], implicit_vr=False, little_endian=True, enforce_file_format=True)


def _turned(dataset: Dataset) -> Dataset:
    """A dataset out of Big Endian: pydicom turns numbers, and leaves values that are bytes to it as they were."""
    for element in dataset.iterall():
        width = _WIDTH.get(element.VR, 1)
        if element.tag == 0x7FE00010:
            width = max(dataset.BitsAllocated // 8, 1)
        if width > 1 and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, f">u{width}").astype(f"<u{width}").tobytes()
    turned = Dataset()
    turned.update({element.tag: element for element in dataset})
    turned.file_meta = dataset.file_meta
    return turned


def _picture(order: dict[str, Any]) -> None:
    head = _head(order)
    frame = next(_decoded(order, head))
    values = _shades(frame, head, order.get("window")) if frame.ndim == 2 else _eight_bits(frame)
    image = Image.fromarray(values)
    if size := order.get("size"):
        image.thumbnail(tuple(size), Image.Resampling.LANCZOS)
    options = {"quality": order["quality"]} if order["format"] == "jpeg" else {}
    image.save(order["output"], order["format"].upper(), **options)


def _shades(frame: NDArray[Any], head: Dataset, window: list[float] | None) -> NDArray[np.uint8]:
    """Grey values from 0 to 255, or colours where the image has a palette."""
    photometric = head.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        return _eight_bits(apply_color_lut(frame, head))
    if head.BitsAllocated == 1 or head.get("Modality") == "SEG":
        shown = (frame > 0).astype(np.uint8) * np.uint8(255)
        return np.asarray(shown, np.uint8)
    values: NDArray[Any] = np.asarray(apply_modality_lut(frame, head), np.float64)
    low, high = float(values.min()), float(values.max())
    if window:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    elif "WindowCenter" in head or "VOILUTSequence" in head:
        voi = apply_voi_lut if "VOILUTSequence" in head else apply_windowing
        values = np.asarray(voi(apply_modality_lut(frame, head), head), np.float64)
        low, high = _range_of_voi(head, values)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255
    return np.asarray(np.round(255 - scaled if photometric == "MONOCHROME1" else scaled), np.uint8)


def _range_of_voi(head: Dataset, values: NDArray[np.float64]) -> tuple[float, float]:
    """What windowing made black and white: it stretches to the whole range of the rescaled values."""
    bits, signed = head.BitsStored, head.PixelRepresentation == 1
    ends = np.array([-(1 << bits - 1), (1 << bits - 1) - 1] if signed else [0, (1 << bits) - 1], np.float64)
    if "VOILUTSequence" in head:
        return 0.0, float(max(values.max(), 1))
    low, high = sorted(ends * float(head.get("RescaleSlope") or 1) + float(head.get("RescaleIntercept") or 0))
    return float(low), float(high)


def _eight_bits(frame: NDArray[Any]) -> NDArray[np.uint8]:
    shift = 8 * (frame.dtype.itemsize - 1)
    return np.asarray(frame >> shift if shift else frame, np.uint8)


def _head(order: dict[str, Any]) -> Dataset:
    """The dataset without its pixels, once it is known that a frame fits into memory."""
    head = dcmread(order["file"], stop_before_pixels=True)
    if not 0 < _frame_bytes(head) <= _LARGEST_FRAME:
        raise _Refused("the image has no size, or one that is too large to be decoded")
    if any(not 0 <= index < _number_of_frames(head) for index in order.get("frames", ())):
        raise _Refused("there is no such frame")
    return head


def _frame_bytes(head: Dataset) -> int:
    samples, bits = int(head.get("SamplesPerPixel") or 0), int(head.get("BitsAllocated") or 0)
    return int(head.get("Rows") or 0) * int(head.get("Columns") or 0) * samples * max(bits // 8, 1) * (bits > 0)


def _number_of_frames(head: Dataset) -> int:
    return max(int(head.get("NumberOfFrames") or 1), 1)


_ORDERS = {"frames": _frames, "instance": _instance, "picture": _picture}


def main() -> None:
    """Serves orders until standard input ends, which it does when whoever gives them is gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU))
    warnings.simplefilter("ignore")  # libraries put values out of a header into their warnings
    Image.MAX_IMAGE_PIXELS = None  # the size was judged before
    config.settings.reading_validation_mode = config.IGNORE
    orders, answers = take_wire()
    for line in orders:
        answers.write(json.dumps(answer(line)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
