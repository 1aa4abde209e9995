"""The report that images were not processed: right for its patient, valid, and judged before it leaves."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.domain import refusals
from gateway.domain.errors import GateRefused, InputRefused
from gateway.domain.messages import ModelIdentity
from tests.support.bundles import write_bundle
from tests.support.result_set import manifest
from tests.support.series import axial, job_order, write_series
from workers.encode.refusal import Refusal, encode_refusal
from workers.infer.model import open_model
from workers.infer.predict import infer
from workers.load.headers import readable_headers
from workers.load.series import load
from workers.verify.refusal import verify_refusal

CODES = refusals.reasons("envelope_size")


def refusal(tmp_path: Path, change=None) -> Refusal:  # type: ignore[no-untyped-def]
    """Of a small series."""
    voxels = np.ones((4, 8, 8), np.uint16)
    names = {"PatientName": "Wang^XiaoDong=王^小东", "SpecificCharacterSet": "ISO_IR 192"}
    paths = write_series(tmp_path / "in", voxels, axial(voxels.shape), attributes=names, change=change)
    order = job_order(paths, tmp_path / "bundle", tmp_path / "out")
    return Refusal(
        manifest=manifest(),
        identity=ModelIdentity(name="m", version="1", digest="d" * 64, device_uid="2.25.7", manufacturer="Somebody"),
        order=replace(order, extra_roles=("sr-comprehensive",)),
        headers=readable_headers(order),
        reason="not processed: the images are not such as the model was made for: too small",
        codes=CODES,
    )


def test_it_says_why_in_codes_and_words(tmp_path: Path) -> None:
    """Both forms hold the same, name every image, and pass the gate; the same refusal gives the same bytes."""
    made = refusal(tmp_path)
    objects = encode_refusal(made)
    assert encode_refusal(made) == objects
    verify_refusal(objects, made.headers, CODES, made.manifest, made.order)
    assert [one.role for one in objects] == ["sr", "sr-comprehensive"]
    for one in objects:
        dataset = dcmread(Path(made.order.output_dir) / one.file)
        said = {str(element.value) for element in dataset.iterall()}
        assert dataset.PatientName == "Wang^XiaoDong=王^小东"
        assert "Not processed: the images are not such as the model was made for: too small." in said
        assert {"111225", "113001", "ENV-SIZE", *(item.sop_instance_uid for item in made.order.inputs)} <= said


def _another(dataset: Dataset) -> None:
    dataset.PatientID = "ANOTHER"


def _verified(dataset: Dataset) -> None:
    dataset.VerificationFlag = "VERIFIED"


def _attempted(dataset: Dataset) -> None:
    for container in dataset.ContentSequence:
        for item in container.get("ContentSequence") or ():
            if item.get("ValueType") == "CODE" and item.ConceptCodeSequence[0].CodeValue == "111225":
                item.ConceptCodeSequence[0].CodeValue = "111222"


@pytest.mark.parametrize("change", [_another, _verified, _attempted])
def test_the_gate_looks_at_it(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Another patient, another status, another answer: it does not leave."""
    made = refusal(tmp_path)
    (one, _) = encode_refusal(made)
    file = Path(made.order.output_dir) / one.file
    dataset = dcmread(file)
    change(dataset)
    dataset.save_as(file)
    data = file.read_bytes()
    changed = replace(one, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    with pytest.raises(GateRefused):
        verify_refusal((changed,), made.headers, CODES, made.manifest, made.order)


def test_nobody_is_named_where_the_images_disagree(tmp_path: Path) -> None:
    """Two patients in one series: there is no header to write a report about."""

    def somebody_else(index: int, dataset: Dataset) -> None:
        if index == 2:
            dataset.PatientID = "ANOTHER"

    assert refusal(tmp_path, change=somebody_else).headers == ()


def test_a_bundle_refuses_by_the_same_error(tmp_path: Path) -> None:
    """A transform may refuse; its code reaches the outcome as it is."""
    bundle = write_bundle(tmp_path / "b")
    (bundle / "scripts/refuses.py").write_text(
        "from gateway.domain.errors import InputRefused\n\n\n"
        "class Refuses:\n    def __call__(self, data):\n"
        "        raise InputRefused('there is metal in the field of view', code='metal')\n"
    )
    config = (bundle / "configs/inference.json").read_text()
    first = '{"_target_": "scripts.refuses.Refuses"},\n'
    (bundle / "configs/inference.json").write_text(config.replace('"transforms": [', f'"transforms": [{first}', 1))
    voxels = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    order = job_order(write_series(tmp_path / "s", voxels, axial(voxels.shape)), bundle, tmp_path / "o")
    model = open_model(bundle)
    with pytest.raises(InputRefused, match="metal") as refused:
        infer(model, load(order, model.manifest))
    assert refused.value.code == "metal"
