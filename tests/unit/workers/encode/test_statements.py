"""Classification and regression: numbers about the whole series, in reports that viewers open, and past the gate."""

import dataclasses

import numpy as np
import pytest
import yaml

from gateway.bundle.output import Output
from gateway.domain.errors import ModelOutputInvalid
from tests.support.bundles import write_bundle
from tests.support.gate import refusal
from tests.support.result_set import AXIAL, IDENTITY, Case, code, manifest, result_set
from workers.encode.objects import encode
from workers.encode.statements import said
from workers.infer.model import open_model
from workers.infer.predict import infer_numbers
from workers.load.volume import Volume

PNEUMONIA, LUNG = code("233604007", "SCT", "Pneumonia"), code("39607008", "SCT", "Lung")
CLASSES = {
    "kind": "classification",
    "findings": [{"name": PNEUMONIA, "site": LUNG}, {"name": code("60046008", "SCT", "Pleural effusion")}],
}
AGE = {
    "kind": "regression",
    "values": [
        {
            "name": code("C0001779", "UMLS", "Age"),
            "unit": code("a", "UCUM", "year"),
            "plausible": {"min": 0, "max": 110},
        }
    ],
}
RESULTS = {"classification": (CLASSES, (0.873, 0.02)), "regression": (AGE, (71.25,))}


@pytest.fixture(params=RESULTS)
def found(request, tmp_path):
    """A result set of each kind."""
    output, numbers = RESULTS[request.param]
    return made(tmp_path, output, numbers)


def made(directory, output, numbers):
    """What the encoder writes of these numbers."""
    base = result_set(directory, Case(affine=AXIAL, roles=("seg", "sr")))
    contract = manifest(output=output)
    labels, measurements = np.zeros_like(base.labels), said(numbers, contract)
    return dataclasses.replace(
        base,
        labels=labels,
        measurements=measurements,
        manifest=contract,
        objects=encode(base.volume, labels, measurements, contract, IDENTITY, base.order),
    )


def test_no_segmentation_but_everything_else(found):
    """There is nothing to paint; report, pictures, PDF and index are there, and right."""
    assert {one.role for one in found.objects} == {"sr", "sc", "pdf", "ko"}
    found.verify()


def number(dataset):
    """The first NUM of the first group."""
    container = next(
        item for item in dataset.ContentSequence if "Measurements" in item.ConceptNameCodeSequence[0].CodeMeaning
    )
    return next(item for item in container.ContentSequence[0].ContentSequence if item.ValueType == "NUM")


def test_probability_is_certainty_of_a_finding(tmp_path):
    """87.3 per cent, beside the coded finding and its site."""
    dataset = made(tmp_path, *RESULTS["classification"]).read("sr")
    item = number(dataset)
    assert item.ConceptNameCodeSequence[0].CodeMeaning == "Certainty of Finding"
    assert float(item.MeasuredValueSequence[0].NumericValue) == pytest.approx(87.3)
    assert item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "%"
    codes = {element.value for element in dataset.iterall() if element.keyword == "CodeValue"}
    assert {"233604007", "39607008", "60046008"} <= codes


def _other_value(dataset):
    measured = number(dataset).MeasuredValueSequence[0]
    measured.NumericValue, measured.FloatingPointValue = "12", 12.0


def _no_place(dataset):
    number(dataset).ContentSequence = []


def _lost_group(dataset):
    container = next(
        item for item in dataset.ContentSequence if "Measurements" in item.ConceptNameCodeSequence[0].CodeMeaning
    )
    del container.ContentSequence[-1]


@pytest.mark.parametrize(
    ("change", "code"), [(_other_value, "numbers"), (_no_place, "no_outline"), (_lost_group, "tracking")]
)
def test_spoiled_statement(found, change, code):
    """Another number, a number nowhere, a number lost."""
    assert refusal(found.changed("sr", change)) == code


def test_implausible_number(tmp_path):
    """A brain of 140 years."""
    assert refusal(made(tmp_path, AGE, (140.0,))) == "implausible"


@pytest.mark.parametrize(
    ("output", "network", "expected"),
    [
        (CLASSES, "return torch.tensor([[0.25, 0.75]])", (0.25, 0.75)),
        (AGE, "return image.mean(dim=(1, 2, 3, 4)).reshape(1, 1) * 0 + 42", (42.0,)),
        (CLASSES, "return torch.tensor([[0.25]])", None),
        (CLASSES, "return torch.tensor([[0.25, 1.75]])", None),
        (AGE, "return torch.tensor([[float('nan')]])", None),
    ],
)
def test_numbers_of_a_model(tmp_path, output, network, expected):
    """As many as the manifest names, finite, probabilities from 0 to 1; all else is refused."""
    bundle = write_bundle(tmp_path / "b")
    source = (bundle / "scripts/network.py").read_text()
    (bundle / "scripts/network.py").write_text(source.replace("return image", network))
    file = bundle / "configs/inference.json"
    file.write_text(file.read_text().replace('"threshold": 0.5', '"threshold": null'))
    contract = yaml.safe_load((bundle / "hilum.yaml").read_text()) | {"output": output}
    (bundle / "hilum.yaml").write_text(yaml.safe_dump(contract))
    volume = Volume(voxels=np.random.default_rng(0).random((4, 6, 6), np.float32), affine=AXIAL, headers=(None,) * 4)
    model = open_model(bundle)
    if expected is None:
        with pytest.raises(ModelOutputInvalid):
            infer_numbers(model, volume)
    else:
        assert infer_numbers(model, volume) == pytest.approx(expected)


@pytest.mark.parametrize(
    "output",
    [
        {"kind": "classification"},
        {"kind": "segmentation"},
        {"kind": "regression", "findings": CLASSES["findings"]},
        {**CLASSES, "overlapping": True},
    ],
)
def test_output_that_is_not_of_its_kind(output):
    """Each kind needs its own list and no other."""
    with pytest.raises(ValueError, match="are for kind"):
        Output.model_validate(output)


def test_overlapping_segments(tmp_path):
    """A voxel of two segments is painted twice and counted twice, and the segmentation says so."""
    base = result_set(tmp_path, Case(affine=AXIAL, segments=2, roles=("seg", "sr")))
    contract = base.manifest.model_copy(
        update={"output": base.manifest.output.model_copy(update={"overlapping": True})}
    )
    labels = np.stack([base.labels == 1, (base.labels == 2) | (base.labels == 1)]).astype(np.uint8)
    from workers.encode.measure import measure

    measurements = measure(labels, base.volume, contract)
    objects = encode(base.volume, labels, measurements, contract, IDENTITY, base.order)
    found = dataclasses.replace(base, labels=labels, measurements=measurements, manifest=contract, objects=objects)
    found.verify()
    dataset = found.read("seg")
    assert dataset.SegmentsOverlap == "YES"
    assert int(dataset.pixel_array.sum()) == int(labels.sum())
    assert measurements[1].value > measurements[0].value
