"""Frames and pictures of odd and of hostile images: the right bytes, or a refusal, and the service goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from tests.support.received import SERIES, STUDY
from tests.support.web import WebSite, image, part10, parts, read, web_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WebSite]:
    with web_site(tmp_path) as made:
        yield made


INSTANCE = f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"
FRAMES = 'multipart/related; type="application/octet-stream"'


def _bits(rows: int, columns: int, frames: int) -> tuple[Dataset, np.ndarray]:
    """A binary multi-frame image as a SEG has it, whose frames begin in the middle of bytes."""
    mask = np.random.default_rng(1).integers(0, 2, (frames, rows, columns), dtype=np.uint8)
    made = image(rows=rows, columns=columns, NumberOfFrames=frames)
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit = 0
    packed = np.packbits(mask.ravel(), bitorder="little").tobytes()
    made.PixelData = packed + b"\0" * (len(packed) % 2)
    return made, mask


def test_frames_of_single_bits(site: WebSite) -> None:
    """Each frame begins with a byte of its own, whatever Rows x Columns is."""
    made, mask = _bits(5, 7, 4)
    assert site.stow(part10(made)).status_code == 200
    found = parts(site.get(f"{INSTANCE}/frames/4,1,2", FRAMES))
    for (_, data), number in zip(found, (3, 0, 1), strict=True):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=35, bitorder="little")
        assert (bits.reshape(5, 7) == mask[number]).all()
    assert site.get(f"{INSTANCE}/frames/5", FRAMES).status_code == 404
    picture = np.asarray(Image.open(io.BytesIO(site.get(f"{INSTANCE}/frames/3/rendered", "image/png").content)))
    assert (picture == mask[2] * 255).all()


def test_frames_of_a_compressed_multi_frame(site: WebSite) -> None:
    """As stored, and decoded, in any order."""
    plain = image(rows=16, columns=8, NumberOfFrames=3)
    values = np.arange(3 * 16 * 8, dtype="<u2").reshape(3, 16, 8)
    plain.PixelData = values.tobytes()
    made = read(part10(plain))
    made.compress(RLELossless, generate_instance_uid=False)
    assert site.stow(part10(made, RLELossless)).status_code == 200
    decoded = parts(site.get(f"{INSTANCE}/frames/3,1", FRAMES))
    assert [data for _, data in decoded] == [values[2].tobytes(), values[0].tobytes()]
    [(headers, stored)] = parts(site.get(f"{INSTANCE}/frames/2", 'multipart/related; type="image/dicom-rle"'))
    assert headers["Content-Type"] == f"image/dicom-rle; transfer-syntax={RLELossless}"
    assert stored in site.spool.path(site.ledger.held(STUDY)[0].file).read_bytes()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_pictures_of_every_encoding(site: WebSite, syntax: UID) -> None:
    """The same picture and the same frame, however the dataset is written."""
    made = image(rows=8, columns=6)
    if not syntax.is_little_endian:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    assert site.stow(part10(made, syntax)).status_code == 200
    answer = site.get(f"{INSTANCE}/rendered", "image/png", window="1024,100")
    picture = np.asarray(Image.open(io.BytesIO(answer.content))).ravel().astype(int)
    assert (np.diff(picture) > 0).all(), "each value is one more than the one before"
    assert site.get(f"{INSTANCE}/frames/1", "application/octet-stream").content == image(rows=8, columns=6).PixelData


@pytest.mark.parametrize(
    ("window", "black", "white"), [("500,2", 500, 501), ("1023.5,1", 1023, 1024), ("1024,100", 974, 1074)]
)
def test_windows(site: WebSite, window: str, black: int, white: int) -> None:
    """What is asked for is what is seen: below it black, above it white."""
    assert site.stow(part10(image(rows=8, columns=6))).status_code == 200
    picture = np.asarray(Image.open(io.BytesIO(site.get(f"{INSTANCE}/rendered", "image/png", window=window).content)))
    values = np.arange(48).reshape(8, 6) + 1000
    assert (picture[values >= white] == 255).all() and (picture[values <= black] == 0).all()
    small = site.get(f"{INSTANCE}/thumbnail", "image/png", viewport="3,3")
    assert max(Image.open(io.BytesIO(small.content)).size) == 3


@pytest.mark.parametrize(
    "lie",
    [
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 65535, "Columns": 65535, "SamplesPerPixel": 3},
        {"Rows": 0},
        {"BitsAllocated": 0},
        {"NumberOfFrames": 1_000_000},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"BitsAllocated": 7},
        {"PixelData": b""},
    ],
)
def test_lies_about_the_pixels(site: WebSite, lie: dict[str, object]) -> None:
    """Stored as it came; no picture, no frame beyond what is there, and the next request is answered."""
    made = image()
    for keyword, value in lie.items():
        setattr(made, keyword, value)
    assert site.stow(part10(made)).status_code == 200
    assert site.get(f"{INSTANCE}/rendered", "image/png").status_code in (200, 404, 406)
    assert site.get(f"{INSTANCE}/frames/2", FRAMES).status_code in (404, 406)
    assert site.get(f"{INSTANCE}/metadata").status_code == 200
    assert read(site.get(INSTANCE, "application/dicom; transfer-syntax=*").content).SOPInstanceUID == f"{SERIES}.1"


def test_sequences_in_sequences(site: WebSite) -> None:
    """Nested deeper than anything sensible: metadata is given as far as it can be, and nothing breaks."""
    made = image()
    inner = made
    for _ in range(60):
        inner.add_new(0x00409096, "SQ", [Dataset()])
        inner = inner[0x00409096].value[0]
    assert site.stow(part10(made)).status_code in (200, 409)
    assert site.get("/studies").status_code == 200
    assert site.get(f"{INSTANCE}/metadata").status_code in (200, 404)


def test_half_of_the_pixels(site: WebSite) -> None:
    """A frame that is not all there is 404, not half a frame."""
    made = image(NumberOfFrames=2)
    assert site.stow(part10(made)).status_code == 200
    assert site.get(f"{INSTANCE}/frames/1", FRAMES).status_code == 200
    assert site.get(f"{INSTANCE}/frames/2", FRAMES).status_code == 404
