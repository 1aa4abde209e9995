"""Names of HL7 and DICOM, and when two of them tell persons apart."""

from __future__ import annotations

import pytest

from gateway.domain.names import agree, comparable
from gateway.hl7.segments import Components, Delimiters
from gateway.orders.names import person_name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Wang^XiaoDong^^^^^L^A~王^小東^^^^^L^I", "Wang^XiaoDong=王^小東"),
        ("王^小東^^^^^L^I~Wang^XiaoDong^^^^^L^A", "Wang^XiaoDong=王^小東"),
        ("王小東", "=王小東"),
        ("葉^小東^^^^^L^A", "=葉^小東"),  # said to be alphabetic, as some do
        ("Yamada^Tarou~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("홍^길동", "=홍^길동"),
        ("Doe&van&Doe^John^Q^Jr^Dr", "Doe^John^Q^Dr^Jr"),
        ("A=B^C\\E\\D", "A B^C D"),
        ("^^^", ""),
    ],
)
def test_name_of_a_message(written: str, name: str) -> None:
    assert person_name(Components(item, Delimiters()) for item in written.split("~")) == name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Wang^XiaoDong", "WANG^XIAODONG^"),
        ("Wang^Xiao Dong", "WANG^XIAO-DONG"),
        ("Wang^XiaoDong=王^小東", "=王小東"),
        ("Wang^XiaoDong", "=王^小東"),  # nothing to compare
        ("Müller^Jürgen", "MUELLER^JUERGEN"),
        ("Müller^Jürgen", "Muller^Jurgen"),
        ("Smith^Anna^Maria", "Smith^Anna"),
        ("Smith^Anna^^Dr", "Smith^Anna"),
        ("SMITH ANNA", "Anna^Smith"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "山田^太郎"),
    ],
)
def test_one_person(first: str, second: str) -> None:
    assert agree(first, second)
    assert agree(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Wang^XiaoDong", "Li^Na"),
        ("Wang^XiaoDong=王^小東", "Wang^XiaoDong=王^小明"),
        ("Smith^Anna", "Smith^Eve"),
        ("=葉^小東", "=許^小東"),
    ],
)
def test_two_persons(first: str, second: str) -> None:
    assert comparable(first, second)
    assert not agree(first, second)
