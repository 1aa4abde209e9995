"""Does a parametric map hold the model's numbers, on the slices it names, with the right name and unit?"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from workers.infer.output import QuantityMap
from workers.verify.evidence import Evidence, Result, code_of
from workers.verify.geometry import frames, source_slice


def check_map(result: Result, evidence: Evidence, found: QuantityMap) -> None:
    """Quantity and unit are the model's, and every frame's numbers too; a slice with any number but zero has its frame."""
    _check_meaning(result, found)
    dataset = result.dataset
    described = frames(result)
    values = np.frombuffer(dataset.get("FloatPixelData") or b"", "<f4")
    if values.size != len(described) * dataset.Rows * dataset.Columns:
        raise result.refuse("pixels", "pixel data has not the length that its frames need")
    seen = set()
    for number, (frame, plane) in enumerate(
        zip(described, values.reshape(-1, dataset.Rows, dataset.Columns), strict=True), start=1
    ):
        index = source_slice(result, evidence, frame, number)
        if index in seen or not np.array_equal(plane, found.values[index]):
            raise result.refuse("pixels", f"frame {number} is not the map on the slice it names")
        seen.add(index)
    if any(found.values[index].any() for index in evidence.slice_of.values() if index not in seen):
        raise result.refuse("pixels", "a slice on which the map has numbers is missing")


def _check_meaning(result: Result, found: QuantityMap) -> None:
    mappings = [
        item
        for group in result.dataset.get("SharedFunctionalGroupsSequence") or ()
        for item in group.get("RealWorldValueMappingSequence") or ()
    ]
    if len(mappings) != 1:
        raise result.refuse("quantity", "its numbers are not mapped to one quantity")
    if code_of(mappings[0], "MeasurementUnitsCodeSequence") != (found.unit.value, found.unit.scheme):
        raise result.refuse("quantity", "its unit is not the model's")
    if (mappings[0].get("RealWorldValueSlope"), mappings[0].get("RealWorldValueIntercept")) != (1, 0):
        raise result.refuse("quantity", "its numbers are not the quantity itself")
    if (found.quantity.value, found.quantity.scheme) not in _quantities(mappings[0]):
        raise result.refuse("quantity", "its quantity is not the model's")


def _quantities(mapping: Dataset) -> list[tuple[str, str]]:
    return [code_of(item, "ConceptCodeSequence") for item in mapping.get("QuantityDefinitionSequence") or ()]
