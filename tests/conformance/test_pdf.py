"""The report on paper, as poppler reads it: whose it is, what was found, and that nobody has verified it."""

import subprocess
import unicodedata

import numpy as np
import pytest

from tests.conformance.conftest import run
from tests.support.result_set import AXIAL, SEGMENTS, Case, code, frame, result_set

NAMES = {
    "Chinese": ("Wang^XiaoDong=王^小東", ["Wang, XiaoDong", "王 小東"]),
    "Japanese": ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["Yamada, Tarou", "山田 太郎", "やまだ たろう"]),
    "Korean": ("Hong^Gildong=洪^吉洞=홍^길동", ["Hong, Gildong", "홍 길동"]),
    "Arabic": ("محمد^عبد الله", ["محمد", "الله"]),
    "Russian": ("Люкceмбypг^Анна", ["Люкceмбypг"]),
}


def report(directory, name):
    """Text and fonts of the report about a patient."""
    attributes = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": name, "StudyDescription": "CT"}
    found = result_set(directory, Case(affine=AXIAL, attributes=attributes, roles=("seg", "sr", "pdf")))
    found.verify()
    dataset = found.read("pdf")
    file = directory / "report.pdf"
    file.write_bytes(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength])
    fonts = run("pdffonts", file).stdout
    return subprocess.run(["pdftotext", file, "-"], capture_output=True, check=True, timeout=60).stdout.decode(), fonts


@pytest.mark.parametrize("language", NAMES)
def test_names_can_be_read(tmp_path, language):
    """Every group of the name is there as text, in embedded fonts that have its characters."""
    name, expected = NAMES[language]
    text, fonts = report(tmp_path, name)
    text = unicodedata.normalize("NFKC", text)
    assert [part for part in expected if part not in text] == []
    rows = [line.split() for line in fonts.splitlines()[2:]]
    assert rows
    assert all(row[-5] == "yes" for row in rows), "a font is not embedded"


def test_report_says_what_it_must(tmp_path):
    """Patient, measurement with unit, model with version, warning and intended use."""
    text, _ = report(tmp_path, "Doe^Jane")
    for said in ("Doe, Jane", "HILUM-DEMO", "DEMO0001", "Liver", "Volume", "mL", "two-balls 1.2.3", "AI, not verified",
                 "Tests only; never for a patient.", "page 1 of 1"):  # fmt: skip
        assert said in text, said


def _many(count):
    """A manifest with so many segments, two numbers each."""
    segments = [SEGMENTS[0] | {"number": n, "label": f"An organ with a long label {n}"} for n in range(1, count + 1)]
    kinds = (("volume", "Volume", "mL"), ("longest_diameter", "Long Axis", "mm"))
    measurements = [
        {"kind": kind, "segment": n, "name": code(name, "99TEST", name), "unit": code(unit, "UCUM", unit)}
        for n in range(1, count + 1)
        for kind, name, unit in kinds
    ]
    return {"kind": "segmentation", "segments": segments, "measurements": measurements}


def test_every_page_names_the_patient(tmp_path):
    """A page that is taken out of the heap; and a long ID runs over nothing that stands beside it."""
    attributes = {"PatientName": "Doe^Jane", "PatientID": "9" * 64, "IssuerOfPatientID": "A hospital"}
    case = Case(affine=AXIAL, attributes=attributes, roles=("seg", "sr", "pdf", "sc"))
    found = result_set(tmp_path, case, output=_many(40))
    found.verify()
    file = tmp_path / "report.pdf"
    file.write_bytes(found.read("pdf").EncapsulatedDocument)
    pages = run("pdftotext", "-layout", file, "-").stdout.rstrip("\f").split("\f")
    assert len(pages) > 1
    for page in pages:
        assert "Doe, Jane" in page
        assert "9" * 60 in page.replace("\u200b", "")
        assert "AI, not verified" in page
    first = next(line for line in pages[0].splitlines() if "1970-01-01" in line)
    assert "DEMO0001" in first
    assert "99" not in first


def test_one_picture_leaves_room_for_the_numbers(tmp_path):
    """A tall picture, or the only one, is no larger than half of the page."""
    case = Case(affine=frame((1, 0, 0), (0, 0, -1), spacing=(3, 1, 1)), shape=(9, 300, 40), roles=("seg", "sr", "pdf"))
    found = result_set(tmp_path, case)
    file = tmp_path / "report.pdf"
    file.write_bytes(found.read("pdf").EncapsulatedDocument)
    assert "Volume" in run("pdftotext", "-l", "1", file, "-").stdout


def test_panel_holds_what_it_has_room_for(tmp_path):
    """Nothing is written over the facts at its end: of segments and remarks as many as fit, and how many are left out."""
    flags = tuple(
        f"A sentence that is long enough for three lines of the panel beside a picture, number {n}." for n in range(9)
    )
    case = Case(affine=AXIAL, flags=flags, roles=("seg", "sr", "sc"))
    found = result_set(tmp_path, case, output=_many(40))
    pixels = found.read("sc").pixel_array[:, -318:-18]
    bright = pixels.astype(int).max(axis=(1, 2)) > 50
    rule = max(row for row in range(len(pixels)) if (np.ptp(pixels[row].astype(int), axis=0) < 9).all() and bright[row])
    assert not bright[rule - 6 : rule - 1].any(), "something is written over the line above the facts"
