"""Whatever bytes a peer sends as a dataset, the answer is a header or one of two errors."""

from __future__ import annotations

import warnings
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from gateway.domain.errors import InvalidIdentifier, NotDicom
from gateway.domain.ids import Uid
from gateway.domain.study import Header
from gateway.receive.header import part10_prefix, read_header
from tests.support.received import dataset, element, encode

SYNTAXES = st.sampled_from(
    [
        str(syntax)
        for syntax in (
            ExplicitVRLittleEndian,
            ImplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
            JPEGBaseline8Bit,
        )
    ]
)
TAGS = st.sampled_from(
    [0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00100010, 0x00100020, 0x0018A001, 0x0020000D, 0x0020000E,
     0x00200011, 0x00200032, 0x00280008, 0x00280010, 0x00280030]
)  # fmt: skip
VRS = st.sampled_from(
    [b"AE", b"CS", b"DS", b"FD", b"IS", b"LO", b"OB", b"PN", b"SQ", b"UI", b"UN", b"US", b"UT", b"??", b"\0\0"]
)


def _real(name: str) -> tuple[bytes, str]:
    path = Path(str(get_testdata_file(name)))
    meta = read_file_meta_info(path)
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    return path.read_bytes()[start : start + 3000], str(meta.TransferSyntaxUID)


REAL = [
    _real(name)
    for name in ("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "reportsi.dcm", "rtplan.dcm")
]


def judge(data: bytes, syntax: str) -> None:
    """A header is complete and can be written; every other way out is an error of ours that quotes nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = read_header(data, syntax)
        except (NotDicom, InvalidIdentifier):
            return
    assert isinstance(header, Header)
    for uid in (header.sop_class_uid, header.sop_instance_uid, header.series_uid, header.study_uid):
        assert Uid(uid) == uid
    prefix = part10_prefix(Uid(header.sop_class_uid), header.sop_instance_uid, Uid(syntax))
    assert prefix[128:132] == b"DICM"
    assert all(len(text) <= 1024 for text in (*vars(header.patient).values(), header.modality, header.series_number))
    assert all(
        abs(number) < 2**32 for number in (*header.position, *header.orientation, *header.pixel_spacing, header.frames)
    )


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=2000), SYNTAXES)
def test_any_bytes(data: bytes, syntax: str) -> None:
    """Noise gives a header or an error of ours."""
    judge(data, syntax)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 2999), st.integers(0, 255)), min_size=1, max_size=12),
    st.integers(0, 3000),
)
def test_flipped_and_cut(real: tuple[bytes, str], flips: list[tuple[int, int]], length: int) -> None:
    """Real datasets with bytes changed and an end missing give a header or an error of ours."""
    data = bytearray(real[0])
    for position, value in flips:
        data[position % len(data)] = value
    judge(bytes(data[: length or None]), real[1])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TAGS, VRS, st.binary(max_size=40)), max_size=8))
def test_strange_elements(parts: list[tuple[int, bytes, bytes]]) -> None:
    """Attributes that we read, with any type and any value, give a header or an error of ours."""
    raw = {tag: element(tag, vr, value) for tag, vr, value in parts}
    plain = {int(item.tag): encode_one(item.keyword) for item in dataset()}
    judge(b"".join(data for _, data in sorted((plain | raw).items())), str(ExplicitVRLittleEndian))


def encode_one(keyword: str) -> bytes:
    """One element of the usual dataset, encoded."""
    whole = dataset()
    for other in dataset():
        if other.keyword != keyword:
            delattr(whole, other.keyword)
    return encode(whole)
