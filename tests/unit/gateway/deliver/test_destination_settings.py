"""What a site may write under `destinations`."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gateway.deliver.settings import DicomDestination, DicomwebDestination
from gateway.report.settings import Hl7Destination


def test_the_documented_keys_are_valid() -> None:
    """The example of the documentation, word for word."""
    text = """
    pacs: {kind: dicom, ae_title: ORTHANC, host: 127.0.0.1, port: 4242, results: [seg, sr, sc], verify: commitment}
    archive: {kind: dicomweb, url: http://127.0.0.1:8042/dicom-web, results: [seg, sr], verify: readback}
    ehr: {kind: hl7, host: 127.0.0.1, port: 2575, version: "2.5.1", charset: "UNICODE UTF-8"}
    """
    data = yaml.safe_load(text)
    assert DicomDestination.model_validate(data["pacs"]).results == ("seg", "sr", "sc")
    assert DicomwebDestination.model_validate(data["archive"]).verify == "readback"
    assert Hl7Destination.model_validate(data["ehr"]).version == "2.5.1"


DICOM = {"kind": "dicom", "ae_title": "A", "host": "h", "port": 104}
WEB = {"kind": "dicomweb", "url": "https://pacs.example/dicom-web"}
HL7 = {"kind": "hl7", "host": "h", "port": 2575}


@pytest.mark.parametrize(
    ("model", "base", "change"),
    [
        (DicomDestination, DICOM, {"ae_title": "SEVENTEEN LETTERS"}),
        (DicomDestination, DICOM, {"port": 0}),
        (DicomDestination, DICOM, {"results": []}),
        (DicomDestination, DICOM, {"results": ["gsps"]}),
        (DicomDestination, DICOM, {"verify": "maybe"}),
        (DicomDestination, DICOM, {"profile": "osirix"}),
        (DicomDestination, DICOM, {"fallbacks": {"sr": []}}),
        (DicomDestination, DICOM, {"fallbacks": {"srr": ["sc"]}}),
        (DicomDestination, DICOM, {"limits": {"associations": 0}}),
        (DicomDestination, DICOM, {"limits": {"rate": 0}}),
        (DicomDestination, DICOM, {"commitment": {"timeout": "0s"}}),
        (DicomDestination, DICOM, {"orthanc": {"url": "http://me:word@h/"}}),
        (DicomDestination, DICOM, {"orthanc": {"url": "http://h/", "user": "me"}}),
        (DicomwebDestination, WEB, {"seg_encoding": "fractional"}),
        (DicomDestination, DICOM, {"timeouts": {"dimse": "0s"}}),
        (DicomDestination, DICOM, {"tls": {"key_file": "k"}}),
        (DicomDestination, DICOM, {"hots": "h"}),
        (DicomwebDestination, WEB, {"url": "ftp://pacs.example/"}),
        (DicomwebDestination, WEB, {"url": "http://me:secret@pacs.example/"}),
        (DicomwebDestination, WEB, {"url": "http://pacs.example/?a=b"}),
        (DicomwebDestination, WEB, {"verify": "commitment"}),
        (DicomwebDestination, WEB, {"user": "me"}),
        (DicomwebDestination, WEB, {"user": "me", "password_file": "p", "token_file": "t"}),
        (Hl7Destination, HL7, {"version": "2.3"}),
        (Hl7Destination, HL7, {"charset": "UTF-8"}),
        (Hl7Destination, HL7, {"processing_id": "X"}),
        (Hl7Destination, HL7, {"time_zone": "Mars/Olympus"}),
        (Hl7Destination, HL7, {"sending_application": ""}),
    ],
)
def test_what_cannot_work_is_refused(model: Any, base: dict[str, Any], change: dict[str, Any]) -> None:
    """The base is valid, the change is not, and the error names its key."""
    model.model_validate(base)
    with pytest.raises(ValidationError) as refused:
        model.model_validate({**base, **change})
    assert set(change) & set(map(str, refused.value.errors()[0]["loc"])) or len(change) > 1 or "user" in change


@pytest.mark.parametrize("name", ["orthanc", "ohif", "slicer", "weasis", "dcm4chee", "minimal"])
def test_a_profile_sets_defaults_and_every_key_overrides_it(name: str) -> None:
    """For both kinds; what the profile says of a key that a kind does not have would be an error."""
    preset = DicomDestination.model_validate({**DICOM, "profile": name})
    assert preset.results != ("seg", "sr")
    assert DicomDestination.model_validate({**DICOM, "profile": name, "results": ["pm"]}).results == ("pm",)


def test_minimal_gets_pictures_in_what_everybody_takes() -> None:
    """Secondary Capture in Implicit VR, and no notes that it could not read."""
    minimal = DicomDestination.model_validate({**DICOM, "profile": "minimal"})
    assert (minimal.roles, minimal.transfer_syntax, minimal.rejection_notes) == (("sc",), "implicit", False)


def test_forms_are_asked_for_only_where_they_may_be_needed() -> None:
    """The role that is sent, what stands in for it, and what a worker must write for it."""

    def destination(**keys: object) -> DicomDestination:
        return DicomDestination.model_validate({**DICOM, **keys})

    plain = destination()
    assert (plain.roles, plain.substitutes, plain.forms) == (("seg", "sr"), {}, frozenset())
    map_first = destination(seg_encoding="labelmap", fallbacks={"seg": ["sc"], "sr": ["sr-comprehensive"]})
    assert map_first.roles == ("seg-labelmap", "sr")
    assert map_first.substitutes == {"seg-labelmap": ("seg",), "seg": ("sc",), "sr": ("sr-comprehensive",)}
    assert map_first.forms == {"seg-labelmap", "sr-comprehensive"}
    assert destination(omit_empty_frames=False, sr_profile="strict").roles == ("seg-all-frames", "sr-strict")
    with pytest.raises(ValidationError, match="one frame an image"):
        destination(seg_encoding="labelmap", omit_empty_frames=False)
