"""A new version of a result names the one that it replaces, and the gate sees to it."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gate import refusal
from tests.support.result_set import IDENTITY, written
from workers.encode.objects import encode


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A result, and a second version of it from another job."""
    first, directory = written("axial"), tmp_path_factory.mktemp("second")
    order = dataclasses.replace(first.order, job_id="1" * 32, output_dir=str(directory), predecessors=first.objects)
    objects = encode(first.volume, first.labels, first.measurements, first.manifest, IDENTITY, order)
    return first, dataclasses.replace(first, order=order, objects=objects)


def test_reports_name_their_predecessor_document(versions):
    """PS3.3 C.17.2: study, series and instance of the report of the same kind."""
    first, second = versions
    for role in ("sr", "sr-data", "pdf", "ko"):
        (study,) = second.read(role).PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        (reference,) = series.ReferencedSOPSequence
        old = first.read(role)
        assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (old.StudyInstanceUID, old.SeriesInstanceUID)
        assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (
            old.SOPClassUID,
            old.SOPInstanceUID,
        )
        assert second.read(role).SOPInstanceUID != old.SOPInstanceUID


def test_the_index_says_in_words_what_it_replaces(versions):
    """Key Object Description (TID 2010): the one place that viewers show."""
    first, second = versions
    said = [item.TextValue for item in second.read("ko").ContentSequence if item.ValueType == "TEXT"]
    assert any(text.endswith(f"Replaces {first.read('ko').SOPInstanceUID}.") for text in said)


def test_the_segmentation_refers_to_the_one_before(versions):
    """As a related instance, with the purpose said."""
    first, second = versions
    (reference,) = second.read("seg").ReferencedInstanceSequence
    assert reference.ReferencedSOPInstanceUID == first.read("seg").SOPInstanceUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "SUPERSEDED"


def test_gate_and_validator_accept_it(versions):
    """The references are known, and dciodvfy finds no error."""
    _, second = versions
    second.verify()
    for role in ("seg", "sr", "pdf", "ko"):
        command = [str(Path(sys.executable).parent / "dciodvfy"), "-new", str(second.path(role))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ["pdf", "ko"])
def test_gate_finds_a_document_without_its_predecessor(versions, role, tmp_path):
    """It would stand beside the one it replaces."""
    _, second = versions
    shutil.copytree(second.order.output_dir, tmp_path / "copy")
    second = dataclasses.replace(second, order=dataclasses.replace(second.order, output_dir=str(tmp_path / "copy")))

    def forgets(dataset):
        del dataset.PredecessorDocumentsSequence

    assert refusal(second.changed(role, forgets)) == "predecessor"


def test_a_report_that_hides_what_it_replaces_is_refused(versions, tmp_path):
    """Without the name of the earlier one, both would stand side by side."""
    first, second = versions
    order = dataclasses.replace(second.order, output_dir=str(tmp_path), predecessors=())
    objects = encode(first.volume, first.labels, first.measurements, first.manifest, IDENTITY, order)
    hiding = dataclasses.replace(second, objects=objects, order=dataclasses.replace(order, predecessors=first.objects))
    assert refusal(hiding) == "predecessor"
