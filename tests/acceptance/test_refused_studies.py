"""Images that a model refuses, the whole way: why they were not processed is in the PACS, in the EHR and told here."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from gateway.domain.ids import StudyUID
from gateway.testing import FakeEhr
from tests.support.head import head
from tests.support.neighbours import SR, Neighbours, study_uid_of
from tests.support.series import write_series
from tests.support.site import Site

pytestmark = [pytest.mark.neighbour, pytest.mark.slow]


def test_a_stripped_head(tmp_path: Path, neighbours: Neighbours) -> None:
    """The shipped model is not asked about a brain without its head: a coded report in Orthanc, one message in the EHR,
    none in an EHR that does not want to hear of it, and the job in quarantine. Done again it is refused again, and nobody
    is told twice."""
    whole = head()
    files = write_series(tmp_path / "in", np.where(whole.reference, whole.voxels, 0), whole.affine)
    study = study_uid_of(files)
    configuration = neighbours.configuration("builtin:brain_mask")
    with FakeEhr() as quiet, Site(tmp_path / "site", _with_quiet(configuration, quiet.port)) as site:
        site.send(files)
        (job,) = site.wait_for_jobs(1)
        assert (job["state"], job["outcome"]["reason_code"]) == ("quarantined", "envelope_size")
        site.wait_for(lambda: neighbours.ehr.messages, "the message")
        message = neighbours.ehr.messages[0].decode()
        for said in ("Not processed: the images are not such as the model was made for", "111065^Summary of Analyses^DCM",
                     "111225^Not Attempted^DCM", "113001^Rejected for Quality Reasons^DCM", "ENV-SIZE^"):  # fmt: skip
            assert said in message
        (found,) = [item for item in neighbours.admin.instances_of(study) if item.sop_class_uid == SR]
        report = dcmread(BytesIO(neighbours.admin.download(found.sop_instance_uid)))
        written = {str(element.value) for element in report.iterall()}
        assert {"111225", "113001", "ENV-SIZE", str(dcmread(files[0]).PatientName)} <= written
        site.hilum("replay", "job", job["id"])
        story = lambda: [event["what"] for event in site.ledger.explain(StudyUID(study))["events"]]  # noqa: E731
        site.wait_for(lambda: story().count("refusal reported") == 2, "the second refusal")
        assert (story().count("job quarantined"), site.jobs()[0]["state"]) == (2, "quarantined")
        assert "not processed" in site.hilum("explain", study).stdout
        assert len(site.ledger.list_deliveries(10)) == 2
        assert quiet.messages == []
    assert len(neighbours.ehr.messages) == 1
    assert neighbours.results(study) == {SR: 1}


def _with_quiet(configuration: dict[str, Any], port: int) -> dict[str, Any]:
    """One more EHR of every rule, which is not told of refusals."""
    quiet = configuration["destinations"]["ehr"] | {"port": port, "refusals": False}
    rules = [rule | {"deliver": [*rule["deliver"], "quiet"]} for rule in configuration["rules"]]
    return configuration | {"destinations": configuration["destinations"] | {"quiet": quiet}, "rules": rules}
