"""Key slices to Secondary Capture images (PS3.3 A.8): colour, burned in, for viewers that show nothing else.

What is burned in names the model and its findings, never the patient: viewers write the patient beside every image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage

from gateway.domain.messages import MeasurementResult
from gateway.domain.roles import SC
from workers.encode.codes import concept_item
from workers.encode.file import copy_body_part
from workers.encode.heatmap import NOT_A_FINDING, bar, explanations, heat_pictures
from workers.encode.listing import lines
from workers.encode.picture import Picture, colour_of, draw, key_slices, shown_on, srgb
from workers.encode.plain import begin
from workers.encode.source import Source
from workers.encode.typeset import pictures
from workers.encode.words import caption, confidence, unit, value
from workers.infer.output import QuantityMap

SERIES_NUMBER = 9004
_SIZE = 768  # pixels of a slice's longer side
_PANEL = 336  # pixels beside it
_LEGEND = 9  # segments that a panel has room for
_NUMBERED = 5  # findings likewise
_HOT = 3  # slices of an explanation


def build_sc(source: Source) -> Iterator[Dataset]:
    """One image for each key slice, in the order of the stack; then those of an explanation."""
    drawn: list[tuple[Picture, QuantityMap | None]] = [
        (draw(source, index, _SIZE), None) for index in key_slices(source)
    ]
    for found in explanations(source):
        drawn += [(picture, found) for picture in heat_pictures(source, found, _SIZE, _HOT)]
    pages = pictures("overlay", _overlay(source, drawn))
    for number, ((picture, why), page) in enumerate(zip(drawn, pages, strict=True), start=1):
        burned = "AI result" if why is None else f"{NOT_A_FINDING},"
        yield _image(source, number, picture, _composed(picture, page), burned)


def _image(source: Source, number: int, picture: Picture, pixels: NDArray[np.uint8], burned: str) -> Dataset:
    description = f"AI, not verified: key slices, {source.manifest.title}"
    result = begin(source, SC, SecondaryCaptureImageStorage, "OT", SERIES_NUMBER, description, number)
    result.ConversionType = "WSD"
    result.ImageType = ["DERIVED", "SECONDARY"]
    result.PatientOrientation = [picture.right, picture.bottom]
    result.BurnedInAnnotation = "NO"  # PS3.3 C.7.6.1.1.5: of text that identifies the patient
    result.DerivationDescription = f"Slice with {burned} burned in, not verified, not for measuring"
    result.SourceImageSequence = [_source_image(source, picture.slice)]
    result.LossyImageCompression = source.references[0].get("LossyImageCompression", "00")
    result.SamplesPerPixel, result.PhotometricInterpretation, result.PlanarConfiguration = 3, "RGB", 0
    result.Rows, result.Columns = pixels.shape[:2]
    result.BitsAllocated = result.BitsStored = 8
    result.HighBit, result.PixelRepresentation = 7, 0
    result.PixelData = pixels.tobytes()
    result["PixelData"].VR = "OB"
    copy_body_part(result, source)
    return result


def _source_image(source: Source, index: int) -> Dataset:
    image, frame = source.reference_of(index), source.volume.frame_number(index)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame
    item.PurposeOfReferenceCodeSequence = [concept_item(codes.DCM.SourceImageForImageProcessingOperation)]
    return item


def _composed(picture: Picture, page: Image.Image) -> NDArray[np.uint8]:
    """The text over the picture, which stands in the middle of the part beside the panel."""
    canvas = Image.new("RGBA", page.size, (0, 0, 0, 255))
    left, top = (page.width - _PANEL - picture.columns) // 2, (page.height - picture.rows) // 2
    canvas.paste(Image.fromarray(picture.pixels), (left, top))
    canvas.alpha_composite(page)
    return np.asarray(canvas.convert("RGB"))


def _overlay(source: Source, drawn: list[tuple[Picture, QuantityMap | None]]) -> dict[str, Any]:
    identity = source.identity
    return {
        "width": _SIZE + _PANEL,
        "height": _SIZE,
        "picture_width": _SIZE,
        "panel_width": _PANEL,
        "title": source.manifest.title,
        "remarks": list(source.remarks),
        "facts": [
            f"{identity.name} {identity.version}",
            identity.manufacturer,
            f"{source.moment:%Y-%m-%d %H:%M}, job {source.order.job_id[:8]}",
            "Not for measuring; see the segmentation." if source.segments else "Not for measuring; see the report.",
        ],
        "pages": [{**_page(source, picture), "bar": None if why is None else bar(why)} for picture, why in drawn],
    }


def _page(source: Source, picture: Picture) -> dict[str, Any]:
    here = set(source.masks.present(picture.slice))
    numbered = len(shown_on(source, picture.slice))
    first = sorted(source.segments, key=lambda spec: (spec.number not in here, spec.number))
    return {
        "left": picture.left,
        "top": picture.top,
        "right": picture.right,
        "bottom": picture.bottom,
        "caption": caption(source, picture.slice),
        "left-edge": (_SIZE - picture.columns) // 2,
        "top-edge": (_SIZE - picture.rows) // 2,
        "width": picture.columns,
        "height": picture.rows,
        "marks": [mark.shown() for mark in picture.marks],
        "segments": _findings(source, picture)
        + [
            {
                "label": spec.label,
                "colour": "#{:02x}{:02x}{:02x}".format(*srgb(spec.cielab)),
                "here": spec.number in here,
                "lines": [
                    f"{found.name.meaning}: {value(found)} {unit(found)}{confidence(found)}"
                    for found in source.measurements
                    if found.segment == spec.number
                ][:3],
            }
            for spec in first[:_LEGEND]
        ]
        + [_statement(source, found, picture) for found in source.statements][:_LEGEND],
        "rest": sum(max(count - room, 0) for count, room in ((len(first), _LEGEND), (numbered, _NUMBERED))),
    }


def _findings(source: Source, picture: Picture) -> list[dict[str, Any]]:
    """What is numbered in the picture."""
    here = [finding for finding, _ in shown_on(source, picture.slice)]
    return [
        {
            "label": f"{finding.told.number}  {finding.told.label}",
            "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(source, finding)),
            "here": True,
            "lines": lines(source, finding),
        }
        for finding in here[:_NUMBERED]
    ]


def _statement(source: Source, found: MeasurementResult, picture: Picture) -> dict[str, Any]:
    """A number about all images; one that is about another image is written faintly."""
    elsewhere = bool(found.sop_instance_uid) and source.slice_of(found) != picture.slice
    verdict = "".join(f", {code.meaning.lower()}" for code in found.verdict)
    image = f"; most on {caption(source, source.slice_of(found))}" if elsewhere else ""
    return {
        "label": found.name.meaning,
        "colour": "#ffffff",
        "here": not elsewhere,
        "lines": [f"{value(found)} {unit(found)}{confidence(found)}{verdict}{image}"],
    }
