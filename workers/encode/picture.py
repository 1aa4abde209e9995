"""Slices as people see them: in the images' own window, with outlines of what was found, in square pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from workers.encode.outline import Points, key_region
from workers.encode.section import NOTHING, reach, section
from workers.encode.source import Source
from workers.load.places import Finding

MOST_SLICES = 6
_FILL = 0.18  # opacity of the inside: what is under it must stay readable
_LINE = 2  # pixels
_BLEND = (np.arange(256) * (1 - _FILL)).astype(np.uint8)
_CLASSES = ((64, 208, 255), (255, 214, 64), (255, 128, 192), (128, 255, 128), (255, 150, 64), (190, 160, 255))
"""Colours of a detection's classes, told apart on grey."""

RGB = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The number of a finding, to be written beside it."""

    text: str
    x: float  # of the picture's width, where the finding ends on the right
    y: float  # of its height, where it begins
    colour: str

    def shown(self) -> dict[str, str | float]:
        """For a template."""
        return {"text": self.text, "x": self.x, "y": self.y, "colour": self.colour}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One slice, drawn."""

    slice: int
    pixels: RGB  # (rows, columns, 3)
    left: str  # which side of the patient is where: R, L, A, P, H, F or two of them
    top: str
    right: str
    bottom: str
    marks: tuple[Mark, ...] = ()

    @property
    def rows(self) -> int:
        """Height in pixels."""
        return len(self.pixels)

    @property
    def columns(self) -> int:
        """Width in pixels."""
        return len(self.pixels[0])


def key_slices(source: Source, most: int = MOST_SLICES) -> tuple[int, ...]:
    """Real slices to show, in the order of the stack: those of findings, of what was said of one image, and where each segment
    is largest; then an even choice of the others.

    Where nothing was found: the middle.
    """
    real = list(source.real_slices)
    places = [finding.slice for finding in source.findings]
    places += [source.slice_of(said) for said in source.statements if said.sop_instance_uid and said.value]
    counts = source.masks.counts[real]
    found = [spec.number for spec in source.segments if counts[:, spec.number].any()]
    if not found and not places:
        return (real[len(real) // 2],)
    chosen = dict.fromkeys([*places, *(real[int(counts[:, number].argmax())] for number in found)])
    painted = [index for index, row in zip(real, counts, strict=True) if row[1:].any()]
    for part in np.linspace(0.1, 0.9, max(most - len(chosen), 0) if painted else 0):
        chosen.setdefault(painted[round(part * (len(painted) - 1))])
    return tuple(sorted(list(chosen)[:most]))


def draw(source: Source, index: int, size: int) -> Picture:
    """A real slice with its longer side ``size`` pixels long."""
    _, between_rows, between_columns = source.volume.spacing
    rows, columns = source.masks.shape[1:]
    scale = size / max(rows * between_rows, columns * between_columns)
    shape = max(1, round(columns * between_columns * scale)), max(1, round(rows * between_rows * scale))
    pixels = np.repeat(_resized(_grey(source, index), shape)[..., None], 3, axis=2)
    for number in source.masks.present(index):
        mask = _resized_mask(source.masks.on(index, number), shape)
        colour = np.array(srgb(source.segments[number - 1].cielab), np.uint8)
        pixels[mask] = _BLEND[pixels[mask]] + (_FILL * colour).astype(np.uint8)
        pixels[mask & ~_eroded(mask)] = colour
    marks = _mark(source, index, pixels)
    left, top, right, bottom = _sides(source.volume.affine)
    return Picture(slice=index, pixels=pixels, left=left, top=top, right=right, bottom=bottom, marks=marks)


def shown_on(source: Source, index: int) -> list[tuple[Finding, Points]]:
    """Findings that a slice shows, with their outlines there (column, row)."""
    rows, columns = source.masks.shape[1:]
    found = []
    for finding in source.findings:
        if finding.part is not None:
            plane = finding.part.on(index, (rows, columns))
            points = key_region(plane[None], (0,)).points if plane.any() else NOTHING
        else:
            assert finding.box is not None  # noqa: S101
            depth = reach(finding.box, source.volume.affine)[:, 0]
            level = float(source.volume.levels[index])
            here = index == finding.slice or depth.min() <= level <= depth.max()
            points = section(finding.box, source.volume.affine, level, rows, columns) if here else NOTHING
        if len(points):
            found.append((finding, points))
    return found


def colour_of(source: Source, finding: Finding) -> tuple[int, int, int]:
    """That of its segment, or of its class."""
    if finding.told.segment is not None:
        return srgb(source.segments[finding.told.segment - 1].cielab)
    return _CLASSES[(finding.box.label if finding.box else 0) % len(_CLASSES)]


def _mark(source: Source, index: int, pixels: RGB) -> tuple[Mark, ...]:
    """Draws the outlines of boxes into a picture and returns the numbers to write; parts of segments have their outline already."""
    rows, columns = source.masks.shape[1:]
    scale = np.array([len(pixels[0]) / columns, len(pixels) / rows])
    canvas, marks = Image.fromarray(pixels), []
    for finding, points in shown_on(source, index):
        colour = colour_of(source, finding)
        if finding.box is not None:
            corners = [(float(x), float(y)) for x, y in points * scale]
            pen = ImageDraw.Draw(canvas)
            pen.line(corners, fill=(0, 0, 0), width=2 * _LINE + 1)  # to be seen on white as well
            pen.line(corners, fill=colour, width=_LINE)
        right, top = float(points[:, 0].max()) / columns, float(points[:, 1].min()) / rows
        marks.append(Mark(text=str(finding.told.number), x=right, y=top, colour="#{:02x}{:02x}{:02x}".format(*colour)))
    pixels[:] = np.asarray(canvas)
    return tuple(marks)


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inside = mask
    for _ in range(_LINE):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside


def srgb(cielab: tuple[float, float, float]) -> tuple[int, int, int]:
    """CIELab under D50, as DICOM has it (PS3.3 C.10.7.1.1), to sRGB; what no screen can show is clipped."""
    lightness, a, b = cielab
    middle = (lightness + 16) / 116
    x, y, z = (
        white * (t**3 if t > 6 / 29 else 3 * (6 / 29) ** 2 * (t - 4 / 29))
        for white, t in zip((0.96422, 1.0, 0.82521), (middle + a / 500, middle, middle - b / 200), strict=True)
    )
    linear = (  # D50 XYZ to linear sRGB, Bradford-adapted
        3.1338561 * x - 1.6168667 * y - 0.4906146 * z,
        -0.9787684 * x + 1.9161415 * y + 0.0334540 * z,
        0.0719453 * x - 0.2289914 * y + 1.4052427 * z,
    )
    red, green, blue = (round(255 * _gamma(min(max(value, 0.0), 1.0))) for value in linear)
    return red, green, blue


def _gamma(value: float) -> float:
    return float(12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)


def _grey(source: Source, index: int) -> RGB:
    values = source.volume.voxels[index]
    header = source.volume.headers[index]
    low, high = _window(header) or source.usual_range
    grey: RGB = (np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255).round().astype(np.uint8)
    return 255 - grey if header is not None and header.get("PhotometricInterpretation") == "MONOCHROME1" else grey


def _window(header: Dataset | None) -> tuple[float, float] | None:
    """The first window that an image asks for (PS3.3 C.11.2.1.2), as lowest and highest value; None without a valid one."""
    try:
        centre, width = (
            float(np.atleast_1d(np.asarray(header.get(keyword), dtype=object))[0]) if header is not None else math.nan
            for keyword in ("WindowCenter", "WindowWidth")
        )
    except (TypeError, ValueError, IndexError):
        return None
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        return None
    return centre - width / 2, centre + width / 2


def _resized(plane: RGB, shape: tuple[int, int]) -> RGB:
    return np.asarray(Image.fromarray(plane).resize(shape, Image.Resampling.BILINEAR))


def _resized_mask(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of which half belongs to the mask; where the picture is the smaller one, every painted voxel has its pixel."""
    found = _resized(mask * np.uint8(255), shape) > 127
    if shape[0] < mask.shape[1] or shape[1] < mask.shape[0]:
        rows, columns = np.nonzero(mask)
        found[rows * shape[1] // mask.shape[0], columns * shape[0] // mask.shape[1]] = True
    return found


def _sides(affine: NDArray[np.float64]) -> tuple[str, str, str, str]:
    """Letters for left, top, right and bottom of a slice as stored (PS3.3 C.7.6.1.1.1)."""
    along_row, along_column = affine[:3, 2], affine[:3, 1]
    return _letters(-along_row), _letters(-along_column), _letters(along_row), _letters(along_column)


def _letters(direction: NDArray[np.float64]) -> str:
    parts = direction / np.linalg.norm(direction)
    order = np.argsort(-np.abs(parts))
    return "".join("LPH"[axis] if parts[axis] > 0 else "RAF"[axis] for axis in order if abs(parts[axis]) > 0.25)[:2]
