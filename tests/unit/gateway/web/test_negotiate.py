"""What a client gets for what it asks, by stored transfer syntax."""

from __future__ import annotations

import pytest

from gateway.web.accept import chosen, parse_accept, parse_media_type
from gateway.web.negotiate import frame_form, instance_form

LE, IMPLICIT, BIG, J2K, MPEG = (
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.102",
)  # fmt: skip
RELATED = "multipart/related; type={}"
OCTETS = RELATED.format('"application/octet-stream"')


@pytest.mark.parametrize(
    ("accept", "stored", "expected"),
    [
        (None, LE, (True, "application/octet-stream", LE, False)),
        (OCTETS, LE, (True, "application/octet-stream", LE, False)),
        (OCTETS, IMPLICIT, (True, "application/octet-stream", LE, False)),
        (OCTETS, BIG, (True, "application/octet-stream", LE, True)),
        (OCTETS + "; transfer-syntax=*", BIG, (True, "application/octet-stream", LE, True)),
        ("application/octet-stream", LE, (False, "application/octet-stream", LE, False)),
        (None, J2K, (True, "image/jp2", J2K, False)),
        (OCTETS, J2K, (True, "application/octet-stream", LE, True)),
        (OCTETS + "; transfer-syntax=*", J2K, (True, "application/octet-stream", J2K, False)),
        (RELATED.format("image/jp2"), J2K, (True, "image/jp2", J2K, False)),
        (RELATED.format('"image/*"'), J2K, (True, "image/jp2", J2K, False)),
        ("image/jp2", J2K, (False, "image/jp2", J2K, False)),
        (RELATED.format("image/jpeg") + "," + OCTETS + ";q=0.5", J2K, (True, "application/octet-stream", LE, True)),
        (OCTETS + ";q=0.5," + RELATED.format("image/jp2"), J2K, (True, "image/jp2", J2K, False)),
        (RELATED.format("image/jpeg"), J2K, None),
        (RELATED.format("image/jp2"), LE, None),
        ("text/html", LE, None),
        (OCTETS + "; transfer-syntax=*", MPEG, (True, "application/octet-stream", MPEG, False)),
    ],
)
def test_frames(accept: str | None, stored: str, expected: tuple[bool, str, str, bool] | None) -> None:
    """Native frames as they are, compressed ones as stored where that is asked for, else decoded."""
    form = frame_form(parse_accept(accept), stored, single=True)
    assert (form and (form.multipart, form.media_type, form.transfer_syntax, form.decoded)) == expected


@pytest.mark.parametrize(
    ("accept", "stored", "expected"),
    [
        (None, J2K, (True, J2K, False)),
        ("application/dicom", J2K, (False, LE, True)),
        ("application/dicom; transfer-syntax=*", J2K, (False, J2K, False)),
        (RELATED.format('"application/dicom"'), LE, (True, LE, False)),
        (RELATED.format('"application/dicom"'), IMPLICIT, (True, LE, True)),
        (RELATED.format('"application/dicom"') + f"; transfer-syntax={J2K}", LE, None),
        (RELATED.format('"application/octet-stream"'), LE, None),
        ("application/dicom+json", LE, None),
    ],
)
def test_instances(accept: str | None, stored: str, expected: tuple[bool, str, bool] | None) -> None:
    """Explicit VR Little Endian unless another syntax, or any, is asked for (PS3.18 8.7.3)."""
    form = instance_form(parse_accept(accept), stored, single=True)
    assert (form and (form.multipart, form.transfer_syntax, form.decoded)) == expected


def test_a_study_is_never_one_file() -> None:
    """Without multipart there is no way to give several."""
    assert instance_form(parse_accept("application/dicom"), LE, single=False) is None


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        (None, "a/x"),
        ("", "a/x"),
        ("*/*", "a/x"),
        ("b/y", "b/y"),
        ("a/x;q=0.1, b/y", "b/y"),
        ("b/*, a/x;q=0.9", "b/y"),
        ("a/x;q=0", None),
        ("c/z", None),
        ("nonsense, b/y", "b/y"),
        ("a/x;q=2", "a/x"),
        (";;;,,,", None),
    ],
)
def test_accept(accept: str | None, best: str | None) -> None:
    """The client's order by q, then ours."""
    assert chosen(parse_accept(accept), ("a/x", "b/y")) == best


def test_a_quoted_parameter() -> None:
    """Quotes, escapes, commas and semicolons inside them."""
    found = parse_media_type('multipart/related; boundary="a;b,\\"c"; Type="application/dicom"')
    assert found.parameters == {"boundary": 'a;b,"c', "type": "application/dicom"}


@pytest.mark.parametrize("text", ["", "text", "text/", "a/b c"])
def test_no_media_type(text: str) -> None:
    """Refused."""
    with pytest.raises(ValueError, match="not a media type"):
        parse_media_type(text)
