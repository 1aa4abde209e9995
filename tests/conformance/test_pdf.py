"""The report on paper, as poppler reads it: whose it is, what was found, and that nobody has verified it."""

import subprocess
import unicodedata

import pytest

from tests.conformance.conftest import run
from tests.support.result_set import AXIAL, Case, result_set

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
