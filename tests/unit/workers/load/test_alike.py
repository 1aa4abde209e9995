"""What is taken for the same element, and what is not."""

from __future__ import annotations

from io import BytesIO

from pydicom import Dataset, dcmread, dcmwrite

from workers.load.alike import Alike, representatives


def encoded(rows: int, *, little: bool = True) -> Dataset:
    """A dataset as a parser gives it: nothing in it is converted yet."""
    dataset, file = Dataset(), BytesIO()
    dataset.Rows, dataset.ImageComments = rows, "x" * 2000
    dcmwrite(file, dataset, implicit_vr=False, little_endian=little)
    file.seek(0)
    found = dcmread(file, force=True)
    assert found.get_item("Rows").is_raw
    return found


def test_the_same_encoding_is_read_once_and_no_other_is_taken_for_it() -> None:
    """258 in little endian is made of the same bytes as 513 in big endian."""
    asked: list[int] = []
    rows = Alike(lambda dataset: asked.append(dataset.Rows) or dataset.Rows, ["Rows", "Columns"])
    datasets = [encoded(258), encoded(258), encoded(513, little=False), encoded(7)]
    assert [rows(one) for one in datasets] == [258, 258, 513, 7]
    assert asked == [258, 513, 7]
    assert representatives(datasets, ["Columns"]) == datasets[:1]


def test_what_is_too_long_to_compare_is_read_each_time() -> None:
    """Two comments of two thousand characters."""
    datasets = [encoded(1), encoded(1)]
    assert [id(one) for one in representatives(datasets, ["ImageComments"])] == [id(one) for one in datasets]
