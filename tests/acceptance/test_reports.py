"""A result's reports all the way: preliminary to every EHR, confirmed by a person, final in all; with the PDF in each form."""

from __future__ import annotations

import base64
from pathlib import Path

import hl7
import pydicom
import pytest
from hl7apy.parser import parse_message

from gateway.testing import FakeEhr
from tests.acceptance.conftest import MakeSite
from tests.support.block import write_block
from tests.support.medplum import medplum_server
from tests.support.neighbours import Neighbours, study_uid_of
from tests.support.orthanc import free_port
from tests.support.python_hl7 import python_hl7
from tests.support.site import Site

ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_confirmation_makes_final_reports_everywhere(
    tmp_path: Path, make_site: MakeSite, neighbours: Neighbours
) -> None:
    """`hilum confirm` gives a second message with its own MSH-10 and the same OBR-3, and the same FHIR report, final, on
    Medplum's server. The result's own PDF is in the ORU, in the MDM that python-hl7's server has taken and hl7apy reads, and in the
    DocumentReference, byte for byte as in the archive."""
    files = write_block(tmp_path / "series")
    with medplum_server() as server, python_hl7("gb18030", codes=("CA", "AA")) as papers, FakeEhr() as pointers:
        destinations = neighbours.configuration("")["destinations"]
        destinations["ehr"]["document"] = "ED"
        destinations["fhir"] = {"kind": "fhir", "url": server.url, "patient": "logical"}
        destinations["papers"] = destinations["ehr"] | {
            "port": papers.port,
            "message": "mdm",
            "charset": "GB 18030-2000",
            "acknowledgement": "deferred",
        }
        destinations["pointers"] = destinations["ehr"] | {"port": pointers.port, "document": "RP", "references": False}
        rule = neighbours.configuration("")["rules"][0] | {"deliver": list(destinations)}
        site = make_site(destinations=destinations, rules=[rule], hl7={"port": free_port()})
        site.send(files)
        (job,) = site.wait_for_jobs(1, "delivered")
        assert [item["status"] for item in server.search("DiagnosticReport")] == ["preliminary"]
        pdf, uid = _archived_pdf(neighbours, study_uid_of(files), tmp_path)
        assert _embedded(neighbours.ehr.messages[0]) == [pdf]
        assert _filed(papers.received[0]) == ("MDM^T02^MDM_T02", pdf)
        assert _embedded(pointers.messages[0]) == []
        assert f"|RP|PDF^Encapsulated PDF^99HILUM||{uid}^".encode() in pointers.messages[0]
        (document,) = server.search("DocumentReference")
        assert base64.b64decode(document["content"][0]["attachment"]["data"]) == pdf
        done = site.hilum("confirm", job["id"], "--by", "Dr. Grey")
        assert done.returncode == 0, done.stderr
        site.wait_for(lambda: len(neighbours.ehr.control_ids) == 2, "the final message")
        site.wait_for(
            lambda: [item["status"] for item in server.search("DiagnosticReport")] == ["final"], "the final report"
        )
        site.wait_for(lambda: len(papers.received) == 2, "the final document")
        again = site.hilum("confirm", job["id"], "--by", "Dr. Grey")
        # On the same connection, one after the other.
        site.wait_for(lambda: _answers(site, "papers") == ["CA, then AA"] * 2, "the answers of the application")
        assert _filed(papers.received[1]) == ("MDM^T10^MDM_T02", pdf)
        original, replacement = (str(one.segment("TXA")[12]) for one in papers.received)
        assert str(papers.received[1].segment("TXA")[13]) == original != replacement
        (result,) = server.search("DiagnosticReport")
        assert result["resultsInterpreter"] == [{"display": "Dr. Grey"}]
        assert {server.read(item["reference"])["status"] for item in result["result"]} == {"final"}
    assert again.returncode == 1
    assert "confirmed already" in again.stderr
    first, second = (message.decode().split("\r") for message in neighbours.ehr.messages)
    requests = [next(line for line in lines if line.startswith("OBR")).split("|") for lines in (first, second)]
    assert [fields[25] for fields in requests] == ["P", "F"]
    assert requests[0][3] == requests[1][3]
    assert requests[0][22] < requests[1][22]


def _archived_pdf(neighbours: Neighbours, study: str, folder: Path) -> tuple[bytes, str]:
    """The PDF inside the archive's Encapsulated PDF object, and its SOP Instance UID."""
    (item,) = [one for one in neighbours.admin.instances_of(study) if one.sop_class_uid == ENCAPSULATED_PDF]
    file = folder / "pdf.dcm"
    file.write_bytes(neighbours.admin.download(item.sop_instance_uid))
    found = pydicom.dcmread(file)
    data = bytes(found.EncapsulatedDocument)[: found.EncapsulatedDocumentLength]
    assert data.startswith(b"%PDF-")
    assert data.rstrip().endswith(b"%%EOF")
    return data, item.sop_instance_uid


def _answers(site: Site, destination: str) -> list[str]:
    """What was answered last to each message for a destination."""
    return [row["last_answer"] for row in site.ledger.list_deliveries() if row["destination"] == destination]


def _filed(message: hl7.Message) -> tuple[str, bytes]:
    """What a document-only EHR files: python-hl7 has received and parsed it, hl7apy finds it valid and has the document."""
    parsed = parse_message(str(message), find_groups=True)
    parsed.validate()
    (observation,) = parsed.mdm_t02_obxnte_suppgrp
    encoded = observation.obx.obx_5.value.split("^")
    assert encoded[1:4] == ["application", "pdf", "Base64"]
    (again,) = message.segments("OBX")
    assert str(again[5]) == observation.obx.obx_5.value
    return str(message.segment("MSH")[9]), base64.b64decode(encoded[4])


def _embedded(message: bytes) -> list[bytes]:
    """What the ED observations of a message hold."""
    fields = [line.split(b"|") for line in message.split(b"\r") if line.startswith(b"OBX|")]
    return [base64.b64decode(one[5].split(b"^")[4]) for one in fields if one[2] == b"ED"]
