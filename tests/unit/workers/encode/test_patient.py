"""Patient and study are copied to the letter, whatever the source wrote and however it encoded it."""

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from workers.encode.patient import copy_patient_and_study

REQUIRED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
            "AccessionNumber", "ReferringPhysicianName")  # fmt: skip


def stored(dataset):
    """The dataset after a way through a file, as the next program reads it."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = "1.2", "1.2.3"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


def source(**attributes):
    """A source header as read from a file."""
    dataset = Dataset()
    dataset.StudyInstanceUID = "1.2.3.4"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return stored(dataset)


def result_of(header, **own):
    """A result with this header's patient, after a way through a file."""
    result = Dataset()
    for keyword, value in own.items():
        setattr(result, keyword, value)
    copy_patient_and_study(header, result)
    return stored(result)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 127", "قباني^لنزار"),
        ("ISO_IR 100", "Müller^Jürg"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_in_every_script(character_set, name):
    """Every group of the name survives, in ISO_IR 192."""
    result = result_of(source(SpecificCharacterSet=character_set, PatientName=name))
    assert str(result.PatientName) == name
    assert result.SpecificCharacterSet == "ISO_IR 192"


def test_ascii_needs_no_character_set():
    """A source in Latin-1 that uses ASCII only gives a result that any old PACS reads."""
    result = result_of(source(SpecificCharacterSet="ISO_IR 100", PatientName="Smith^John"))
    assert "SpecificCharacterSet" not in result


def test_own_text_that_is_not_ascii_is_declared():
    """The manifest may speak Chinese about an ASCII patient."""
    result = result_of(source(PatientName="Smith^John"), SeriesDescription="脑")
    assert (result.SpecificCharacterSet, result.SeriesDescription) == ("ISO_IR 192", "脑")


@pytest.mark.parametrize("name", ["王^小明".encode("gb18030"), "Müller".encode("latin-1"), "Wang=王".encode()])
def test_undeclared_bytes_pass_unchanged(name):
    """No guess about a name whose character set nobody declared: the same bytes, as undeclared as they came."""
    result = result_of(source(PatientName=name), SeriesDescription="脑 AI")
    assert result.PatientName.original_string == name
    assert "SpecificCharacterSet" not in result
    assert result.SeriesDescription == "? AI"


def test_undeclared_description_is_left_out():
    """What is not needed to find the patient is no reason for a result in an undeclared character set."""
    result = result_of(source(PatientName="A^B", StudyDescription="Sch\xe4del"))
    assert "StudyDescription" not in result
    assert str(result.PatientName) == "A^B"


def test_absent_attributes_are_present_and_empty():
    """Type 2 attributes that the source lacks are empty, not missing."""
    result = result_of(source())
    assert all(not result[keyword].value for keyword in REQUIRED)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "  A 12"),
        ("PatientID", "x" * 80),
        ("PatientName", "a^b  ^^^"),
        ("PatientName", "no caret"),
        ("PatientBirthDate", "1970.01.01"),
        ("PatientSex", "Male"),
        ("StudyTime", "25:99"),
        ("AccessionNumber", "much longer than sixteen characters"),
        ("StudyID", ""),
        ("IssuerOfPatientID", "HOSPITAL A&1.2.3&ISO"),
    ],
)
def test_identity_is_not_corrected(keyword, value):
    """A PACS matches what it has stored, not what should have been written."""
    header = source(**{keyword: value})
    assert str(result_of(header)[keyword].value or "") == value


@pytest.mark.parametrize(("keyword", "value"), [("PatientAge", "45"), ("StudyDescription", "x" * 80)])
def test_invalid_extras_are_left_out(keyword, value):
    """An odd value of an optional attribute does not make the result invalid."""
    assert keyword not in result_of(source(**{keyword: value}))


def test_number_that_is_none_is_left_out():
    """A weight of `abcd` is no reason to fail."""
    header = source()

    header._dict[Tag("PatientWeight")] = RawDataElement(Tag("PatientWeight"), "DS", 4, b"abcd", 0, False, True)
    assert "PatientWeight" not in result_of(header)


def test_useful_extras_are_copied():
    """Age, description and procedure come along where they are valid; a broken code does not."""
    good, broken = Dataset(), Dataset()
    good.CodeValue, good.CodingSchemeDesignator, good.CodeMeaning = "24725-4", "LN", "CT Head"
    header = source(PatientAge="045Y", StudyDescription="CT head", ProcedureCodeSequence=[good])
    result = result_of(header)
    assert (result.PatientAge, result.StudyDescription) == ("045Y", "CT head")
    assert result.ProcedureCodeSequence[0].CodeMeaning == "CT Head"
    assert "ProcedureCodeSequence" not in result_of(source(ProcedureCodeSequence=[broken]))


def test_the_source_is_not_changed():
    """Copying takes a copy."""
    header = source(PatientName="Smith^John")
    result = result_of(header)
    result.PatientName = "Other"
    assert str(header.PatientName) == "Smith^John"
