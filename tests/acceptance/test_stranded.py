"""A model for a device that no worker has: everybody who asks is told, and its jobs end where a person sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.block import write_block
from tests.support.bundles import write_bundle
from tests.support.neighbours import study_uid_of
from tests.support.site import Site

pytestmark = pytest.mark.slow


def cuda_bundle(directory: Path) -> Path:
    """A bundle that needs a graphics card."""
    bundle = write_bundle(directory, name="on_cuda")
    manifest = yaml.safe_load((bundle / "hilum.yaml").read_text())
    manifest["resources"]["device"] = "cuda"
    (bundle / "hilum.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return bundle


def test_a_device_that_no_worker_has(tmp_path: Path) -> None:
    """The doctor fails, `status` and `explain` say what the job waits for, and then it is quarantined and can be replayed;
    the model beside it that needs no such device has given its result meanwhile, and its time is known."""
    files = write_block(tmp_path / "series")
    configuration = {
        "models": {
            "needs-cuda": {"bundle": str(cuda_bundle(tmp_path / "cuda"))},
            "plain": {"bundle": str(write_bundle(tmp_path / "plain", name="plain"))},
        },
        "rules": [{"name": "every MR", "when": 'series.modality == "MR"', "run": ["needs-cuda", "plain"]}],
        "jobs": {
            "lease": "4s", "heartbeat": "1s", "reconcile": "1s", "knock": "1s", "devices": ["cpu"], "stranded_after": "45s",
        },
    }  # fmt: skip
    with Site(tmp_path / "site", configuration) as site:
        site.send(files)
        site.wait_for_jobs(1, "delivered")
        site.wait_for(lambda: any(job["waits"] for job in site.jobs()), "somebody to say what it waits for")
        reason = "NO_DEVICE: the model needs cuda, and no worker has it (those that are there have cpu)"
        told = site.hilum("explain", study_uid_of(files)).stdout
        assert f"waits: {reason}" in " ".join(told.split())
        status = json.loads(site.hilum("status", "--json").stdout)
        assert status["waits"] == [{"reason": reason, "jobs": 1}]
        [worker] = status["workers"]
        assert (worker["devices"], worker["opened"]) == (["cpu"], 1)
        assert [model["name"] for model in worker["models"]] == ["plain"]
        assert worker["models"][0]["held_mib"] > 100
        shown = site.hilum("status").stdout
        assert "1 wait: NO_DEVICE" in shown
        found = {item["what"]: item for item in json.loads(site.hilum("check", "--json").stdout)}
        assert not found["devices"]["good"]
        assert "needs-cuda needs cuda: workers that are running have cpu only" in found["devices"]["found"]
        site.wait_for_jobs(1, "quarantined")
        [job] = [job for job in site.jobs() if job["model"] == "needs-cuda"]
        assert job["reason"] == reason
        assert job["id"] in site.hilum("dead-letters").stdout
        assert site.hilum("replay", "job", job["id"]).returncode == 0
        [plain] = [job for job in site.jobs() if job["model"] == "plain"]
        assert plain["voxels"] == 24 * 32 * 32
        site.send(write_block(tmp_path / "again", seed="again"))
        site.wait_for(lambda: any(job["expected"] for job in site.jobs()), "an estimate")
        site.wait_for_jobs(2, "delivered")
    assert Site.hilum(site, "status", "--json").stdout.count('"host"') == 0
