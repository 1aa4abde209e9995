"""Public validators find nothing wrong in any object that Hilum writes."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.conformance.conftest import run
from tests.support.multiframe import multiframe_results
from tests.support.result_set import CASES, written

EVERY = pytest.mark.parametrize("name", CASES)


def complaints(name):
    """What dciodvfy says of the objects of a case, without the lines that only name the object's kind."""
    found = written(name)
    for role, path in ((one.role, Path(found.order.output_dir) / one.file) for one in found.objects):
        done = run("dciodvfy", "-new", path)
        for line in (done.stdout + done.stderr).splitlines():
            if line.startswith(("Error", "Warning")):
                yield role, line
        assert done.returncode == 0


def in_utf8(source, directory):
    """Copies of the images with all text in ISO_IR 192."""
    for path in sorted(source.iterdir()):
        dataset = dcmread(path)
        dataset.decode()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.save_as(directory / path.name)
        yield directory / path.name


@EVERY
def test_dciodvfy(name):
    """No error; the only warning is about Device UID in Contributing Equipment, which dciodvfy's edition does not know yet."""
    assert [found for found in complaints(name) if "DeviceUID" not in found[1]] == []


@EVERY
def test_dcentvfy(name, tmp_path):
    """Patient, study and series entities are the same over images, segmentation and reports; all references exist.

    dcentvfy itself files Accession Number under the series in images and under the study in reports, and says so. It
    compares bytes, so the images are put into the results' character set first.
    """
    found = written(name)
    done = run("dcentvfy", *in_utf8(found.source, tmp_path), *found.paths())
    lines = (done.stdout + done.stderr).splitlines()
    own = "Different information entities for attribute - Element=<AccessionNumber>"
    assert (done.returncode, [line for line in lines if own not in line]) == (0, [])


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_results_on_multiframe_images(tmp_path, modality):
    """Every object about an enhanced image is valid, and agrees with it on patient, study and references."""
    objects, *_ = multiframe_results(tmp_path, modality)
    files = [tmp_path / "result" / one.file for one in objects]
    for file in files:
        done = run("dciodvfy", "-new", file)
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
        # What part of the body it is stands in functional groups, frame by frame, so nothing is said of sides either.
        assert [line for line in said if "DeviceUID" not in line and "Laterality" not in line] == []
        assert done.returncode == 0
    done = run("dcentvfy", *in_utf8(tmp_path / "enhanced", tmp_path), *files)
    # The converted image has empty attributes of trials, which results do not repeat, and names the images it was made from,
    # which are not there. Nothing of that is said of a result's own references.
    known = ("Element=<AccessionNumber>", "Attribute present in one instance but not the other")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if not any(word in line for word in known)]
    assert [line for line in lines if not ("Missing SOPInstanceUID" in line and "image.dcm" in line)] == []


def test_dcentvfy_sees_faults(tmp_path):
    """The judge is awake: another patient's name is an error."""
    found = written("axial")
    dataset = found.read("seg")
    dataset.PatientName = "Somebody^Else"
    dataset.save_as(tmp_path / "spoiled.dcm")
    done = run("dcentvfy", *found.source.iterdir(), tmp_path / "spoiled.dcm")
    assert "PatientName" in done.stdout + done.stderr


@EVERY
@pytest.mark.parametrize("role", ["sr", "sr-data"])
def test_dsrdump(name, role):
    """DCMTK reads the whole tree, with the number, its unit and the status."""
    found = written(name)
    done = run("dsrdump", "+U8", found.path(role))
    assert done.returncode == 0
    assert "E:" not in done.stderr
    assert "PRELIMINARY" in done.stdout
    assert "UNVERIFIED" in done.stdout
    for measured in found.measurements:
        assert f'"Volume")="{measured.value:.9g}" (mL,UCUM,' in done.stdout


def test_dciodvfy_sees_faults(tmp_path):
    """The judge is awake: a segmentation without its series reference is an error."""
    dataset = written("axial").read("seg")
    del dataset.ReferencedSeriesSequence
    dataset.save_as(tmp_path / "spoiled.dcm")
    done = run("dciodvfy", "-new", tmp_path / "spoiled.dcm")
    assert done.returncode != 0
    assert "Error" in done.stdout + done.stderr


def test_cases_are_not_all_empty():
    """What is judged has something in it."""
    assert sum(int(np.count_nonzero(written(name).labels)) for name in CASES) > 1000
