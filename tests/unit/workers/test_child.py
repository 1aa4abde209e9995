"""The child's answers, without a process around it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.domain.messages import JobOrder, Outcome, from_json, to_json
from tests.support.bundles import write_bundle
from tests.support.series import axial, job_order, write_series
from workers.child import Child
from workers.load.envelope import take_fingerprint
from workers.load.volume import Volume

pytestmark = pytest.mark.usefixtures("unlimited")

VOXELS = np.zeros((8, 24, 24))
VOXELS[2:5, 6:14, 4:10] = 900
VOXELS += np.arange(24)


def order(tmp_path: Path, bundle: Path, job_id: str = "0" * 32, **options: Any) -> JobOrder:
    """An order over a small series."""
    paths = write_series(tmp_path / "in", VOXELS, axial(VOXELS.shape), **options)
    return job_order(paths, bundle, tmp_path / job_id, job_id=job_id)


def answers(child: Child, wire: StringIO, *lines: str) -> list[dict[str, Any]]:
    """What the child says to these lines."""
    wire.seek(0)
    wire.truncate()
    for line in lines:
        child.answer(line)
    return [json.loads(line) for line in wire.getvalue().splitlines()]


def test_a_job_is_told_stage_by_stage_and_ends_with_its_outcome(tmp_path: Path) -> None:
    """The whole of a small job: objects on disk, numbers right, a time for each stage."""
    wire = StringIO()
    said = answers(Child(wire), wire, to_json(order(tmp_path, write_bundle(tmp_path / "b"))))
    assert [item["stage"] for item in said[:-1]] == ["open", "load", "infer", "measure", "encode", "verify"]
    outcome = from_json(Outcome, json.dumps(said[-1]["outcome"]))
    assert (outcome.status, outcome.source_instances) == ("complete", 8)
    assert [segment.voxels for segment in outcome.segments] == [144]
    assert outcome.measurements[0].value == pytest.approx(144 * 3.0 / 1000)
    assert {item.role for item in outcome.objects} >= {"seg", "sr"}
    assert all((tmp_path / ("0" * 32) / item.file).stat().st_size == item.size for item in outcome.objects)
    assert list(outcome.timings) == ["load", "infer", "measure", "encode", "verify"]


def test_the_same_order_gives_the_same_bytes(tmp_path: Path) -> None:
    """Twice in one process: identity and content of every object are equal."""
    wire = StringIO()
    made = to_json(order(tmp_path, write_bundle(tmp_path / "b")))
    child = Child(wire)
    first, second = (answers(child, wire, made)[-1]["outcome"]["objects"] for _ in range(2))
    assert first == second


def test_a_sampled_model_says_how_sure_it_is(tmp_path: Path) -> None:
    """In its measurements, its flags and a map, all through the gate; and the outcome says what it was made with."""
    wire = StringIO()
    bundle = write_bundle(tmp_path / "b", "dropout", uncertainty={"method": "mc_dropout", "samples": 3, "seed": 5})
    outcome = from_json(
        Outcome, json.dumps(answers(Child(wire), wire, to_json(order(tmp_path, bundle)))[-1]["outcome"])
    )
    (volume,) = outcome.measurements
    assert volume.low is not None
    assert volume.high is not None
    assert volume.low < volume.high < volume.value
    assert (volume.confidence, [item.role for item in outcome.objects].count("pm")) == ("low", 1)
    assert outcome.flags[0].startswith("Bright: confidence low; 3 runs with dropout on")
    assert (outcome.provenance["seed"], outcome.provenance["device"]) == ("5", "cpu")
    assert "uncertainty" in outcome.timings


def test_images_unlike_the_reference_are_refused_before_the_model_runs(tmp_path: Path) -> None:
    """As an outcome with a code; without `refuse` they are done, flagged and scored."""
    wire = StringIO()
    codes = []
    for outside in ("refuse", "flag"):
        bundle = write_bundle(tmp_path / outside, envelope={"fingerprint": "f.json", "outside": outside})
        reference = Volume(voxels=VOXELS.astype(np.float32)[:, 8:, ::-1] + 5000, affine=np.eye(4), headers=(None,) * 8)
        (bundle / "f.json").write_text(take_fingerprint([reference]).to_json())
        said = answers(Child(wire), wire, to_json(order(tmp_path, bundle, outside.ljust(32, "0"))))
        outcome = said[-1]["outcome"]
        codes.append((outcome["status"], outcome["reason_code"][:9]))
    assert codes == [("refused", "envelope_"), ("complete", "")]
    assert "infer" in [item.get("stage") for item in said]
    assert outcome["flags"][0].startswith("Outside what the model was made for: ")
    assert outcome["quality"]["outside"] > 0


def test_another_body_part_is_refused(tmp_path: Path) -> None:
    """Where the images name one; a part that they do not name is no reason."""
    wire = StringIO()
    bundle = write_bundle(tmp_path / "b", body_part=("HEAD",))
    made = order(tmp_path, bundle, attributes={"BodyPartExamined": "KNEE"})
    outcome = answers(Child(wire), wire, to_json(made))[-1]["outcome"]
    assert (outcome["status"], outcome["reason_code"]) == ("refused", "body_part")


@pytest.mark.parametrize(
    ("behaviour", "plausible", "missing", "code"),
    [
        ("threshold", None, [3], "gap"),
        ("nan", None, [], "output_not_finite"),
        ("threshold", (1000.0, 2000.0), [], "implausible"),
    ],
)
def test_refusals_are_outcomes(
    tmp_path: Path, behaviour: str, plausible: tuple[float, float] | None, missing: list[int], code: str
) -> None:
    """Of the images by loading, of the output by inference, of the result by the gate: status, code and sentence."""
    wire = StringIO()
    bundle = write_bundle(tmp_path / "b", behaviour, plausible=plausible)
    outcome = answers(Child(wire), wire, to_json(order(tmp_path, bundle, missing=missing)))[-1]["outcome"]
    assert (outcome["status"], outcome["reason_code"]) == ("refused", code)
    assert outcome["reason"]
    assert outcome["objects"] == []


def test_an_exception_of_the_model_names_the_stage_and_the_place(tmp_path: Path) -> None:
    """What the network raises is told; the child lives on."""
    wire = StringIO()
    child = Child(wire)
    said = answers(child, wire, to_json(order(tmp_path, write_bundle(tmp_path / "b", "raises"))))[-1]
    assert said["kind"] == "ModelCrashed"
    assert said["error"].startswith("RuntimeError at network.py:")
    assert said["error"].endswith("during infer (no such luck)")
    again = answers(child, wire, to_json(order(tmp_path, write_bundle(tmp_path / "c"), "1" * 32)))
    assert again[-1]["outcome"]["status"] == "complete"


def test_nothing_of_the_patient_is_in_an_error(tmp_path: Path) -> None:
    """An exception outside the network is told by type and place only: its text may quote a header."""
    wire = StringIO()
    made = order(tmp_path, write_bundle(tmp_path / "b"))
    (tmp_path / ("0" * 32)).rmdir()
    (tmp_path / ("0" * 32)).write_text("not a directory")
    said = answers(Child(wire), wire, to_json(made))[-1]
    assert said["kind"] == "ModelCrashed"
    assert "during encode" in said["error"]
    assert str(tmp_path) not in said["error"]


def test_a_bundle_that_is_none_is_said_to_be_invalid(tmp_path: Path) -> None:
    """The supervisor makes BundleInvalid of it, and nobody tries again."""
    wire = StringIO()
    said = answers(Child(wire), wire, to_json(order(tmp_path, tmp_path)))[-1]
    assert said["kind"] == "BundleInvalid"
    assert "hilum.yaml is missing" in said["error"]


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"version": 99}', "nonsense"])
def test_a_line_that_is_no_order_is_an_error_line(line: str) -> None:
    """Never a traceback, never silence."""
    wire = StringIO()
    (said,) = answers(Child(wire), wire, line)
    assert said["kind"] == "ModelCrashed"
