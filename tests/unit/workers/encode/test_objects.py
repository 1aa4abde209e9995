"""A result set as a whole: its files, its identity, and that it is always the same."""

import copy
import dataclasses
import hashlib
import time

import numpy as np
import pytest
from pydicom import dcmread

from gateway.domain.errors import InputRefused, ModelOutputInvalid
from tests.support.result_set import AXIAL, CASES, IDENTITY, PROVENANCE, Case, manifest, result_set, written
from workers.encode.objects import encode

EVERY = ("seg", "sr", "sr-data", "sc", "pdf", "ko")


def again(found, directory, **changes):
    """Encodes the same once more into another directory."""
    directory.mkdir()
    order = dataclasses.replace(found.order, output_dir=str(directory), **changes)
    kinds = {one.role for one in found.objects}
    return encode(
        found.volume,
        found.labels,
        found.measurements,
        found.manifest,
        IDENTITY,
        order,
        found.maps,
        provenance=PROVENANCE,
        only=kinds,
    )


def test_files_are_as_described():
    """Every usual role, each object with its digest, size and UIDs."""
    found = written("axial")
    assert list(dict.fromkeys(one.role for one in found.objects)) == ["seg", "sr", "sr-data", "sc", "pdf", "ko"]
    for described, path in zip(found.objects, found.paths(), strict=True):
        data = path.read_bytes()
        dataset = dcmread(path)
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (described.sha256, described.size)
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == described.sop_instance_uid
        assert (dataset.SeriesInstanceUID, dataset.SOPClassUID) == (described.series_uid, described.sop_class_uid)


@pytest.mark.parametrize("name", ["oblique", "nothing found", "odd matrix"])
def test_same_order_same_bytes(tmp_path, name):
    """Nothing random and no clock: a retry writes the same files."""
    found = written(name)
    assert again(found, tmp_path / "again") == found.objects


def test_another_job_has_other_uids(tmp_path):
    """New content never takes an old object's place in a PACS."""
    found = written("axial")
    other = again(found, tmp_path / "other", job_id="f" * 32)
    uids = {uid for one in (*found.objects, *other) for uid in (one.sop_instance_uid, one.series_uid)}
    series = {one.series_uid for one in (*found.objects, *other)}
    assert len(uids) == 2 * len(found.objects) + len(series)
    assert len(series) == 12


def test_content_date_is_the_orders():
    """Date and time of every object follow from the order alone, in the machine's zone."""
    found = written("axial")
    expected = time.strftime("%Y%m%d%H%M%S", time.localtime(found.order.content_time))
    for role in EVERY:
        dataset = found.read(role)
        assert dataset.ContentDate + dataset.ContentTime == expected
        assert dataset.InstanceCreationDate + dataset.InstanceCreationTime == expected


def test_declared_time_zone_of_the_images_holds(tmp_path):
    """10:15 UTC is 15:45 where the images say they are from."""
    found = result_set(tmp_path, Case(affine=AXIAL, attributes={"TimezoneOffsetFromUTC": "+0530"}))
    dataset = found.read("sr")
    assert (dataset.TimezoneOffsetFromUTC, dataset.ContentDate, dataset.ContentTime) == ("+0530", "20260102", "154500")


@pytest.mark.parametrize("name", CASES)
def test_patient_and_study_are_the_sources(name):
    """The same in every object, in every group of the name."""
    found = written(name)
    for role in EVERY:
        dataset = found.read(role)
        for keyword in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "StudyInstanceUID",
            "AccessionNumber",
            "StudyDate",
        ):
            assert str(dataset[keyword].value) == str(found.volume.first[keyword].value)


def test_algorithm_is_contributing_equipment():
    """IHE AIR: purpose 1630 of 99IHE, with the Device UID of the build."""
    for role in EVERY:
        (item,) = written("axial").read(role).ContributingEquipmentSequence
        purpose = item.PurposeOfReferenceCodeSequence[0]
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("1630", "99IHE")
        assert item.DeviceUID == IDENTITY.device_uid


def test_source_without_anything_optional(tmp_path):
    """An image with the bare minimum still gives a right result."""

    def strip(_, dataset):
        for keyword in ("PatientName", "PatientID", "StudyID", "AccessionNumber", "StudyDate", "SliceThickness",
                        "PositionReferenceIndicator", "SeriesNumber", "ReferringPhysicianName"):  # fmt: skip
            delattr(dataset, keyword)

    result_set(tmp_path, Case(affine=AXIAL), change=strip).verify()


@pytest.mark.parametrize("text", ["back\\slash, line\nbreak " + "肝" * 300, " "], ids=["long and odd", "blank"])
def test_long_and_odd_words_of_a_manifest(tmp_path, text):
    """What a bundle's maker writes never breaks an object: cut and cleaned where DICOM asks."""
    result_set(tmp_path, Case(affine=AXIAL), intended_use=text, title=text[:64], version=text[:64]).verify()


def test_output_that_does_not_fit():
    """Labels of another shape, or with a number that the manifest does not know."""
    found = written("axial")
    for labels in (found.labels[1:], np.full_like(found.labels, 2)):
        with pytest.raises(ModelOutputInvalid):
            encode(found.volume, labels, found.measurements, found.manifest, IDENTITY, found.order)


def test_images_that_nothing_can_be_placed_on():
    """No frame of reference, no image at all, or one image twice: refused with a reason."""
    found = written("axial")
    headers = found.volume.headers
    lost = copy.deepcopy(headers)
    for header in lost:
        header.FrameOfReferenceUID = ""
    for changed in (lost, (None,) * len(headers), (headers[0], *headers[:-1])):
        volume = dataclasses.replace(found.volume, headers=changed)
        with pytest.raises(InputRefused):
            encode(volume, found.labels, found.measurements, found.manifest, IDENTITY, found.order)


def test_code_that_is_longer_than_sixteen_characters(tmp_path):
    """Codes of national editions of SNOMED CT are; they stand in an attribute of their own (PS3.3 8.1)."""
    long = {"value": "107401000119105123", "scheme": "SCT", "meaning": "Something of a national edition"}
    output = manifest().output.model_dump(mode="json")
    output["segments"][0] |= {"type": long, "anatomic_region": long, "laterality": None}
    output["measurements"][0]["name"] = long
    found = result_set(tmp_path, Case(affine=AXIAL, roles=("seg", "sr", "sr-data", "sr-strict")), output=output)
    found.verify()
    named = found.read("seg").SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert (named.LongCodeValue, "CodeValue" in named) == (long["value"], False)
