"""Two models in turns on a whole site: both stay open where there is memory for both, and one does where there is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.block import write_block
from tests.support.bundles import write_bundle
from tests.support.site import Site

pytestmark = pytest.mark.slow

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    """Starts a site that runs two models on every MR and sends their results nowhere."""
    with ExitStack() as stack:

        def make(**jobs: Any) -> Site:
            bundles = {name: str(write_bundle(tmp_path / name, name=name)) for name in ("one", "two")}
            times = {"lease": "4s", "heartbeat": "1s", "reconcile": "1s", "knock": "1s"}
            configuration = {
                "models": {name: {"bundle": bundle} for name, bundle in bundles.items()},
                "rules": [{"name": "every MR", "when": 'series.modality == "MR"', "run": ["one", "two"]}],
                "jobs": times | jobs,
            }
            return stack.enter_context(Site(tmp_path / "site", configuration))

        yield make


def in_turns(site: Site, tmp_path: Path, studies: int) -> None:
    """Studies one after another, up to so many, so that each is done by both models before the next comes."""
    for number in range(_ended(site) // 2, studies):
        site.send(write_block(tmp_path / f"series-{number}", seed=str(number)))
        site.wait_for(lambda done=2 * (number + 1): _ended(site) == done, "both results", 150)


def _ended(site: Site) -> int:
    jobs = site.jobs()
    assert all(job["state"] in ("queued", "running", "ready", "delivering", "delivered") for job in jobs), jobs
    return sum(job["state"] == "delivered" for job in jobs)


def opened(site: Site) -> int:
    """How often a model was opened."""
    return site.log.count("model opened")


def test_models_that_take_turns_stay_open(tmp_path: Path, make_site: MakeSite) -> None:
    """Three studies, each by both: two processes are started, and each does three jobs."""
    site = make_site()
    in_turns(site, tmp_path, 3)
    assert opened(site) == 2
    assert len(site.worker().children()) == 2


def test_too_little_memory_for_two(tmp_path: Path, make_site: MakeSite) -> None:
    """There is never more than one, and all jobs are done. The one that is open goes first."""
    site = make_site(memory_mib=500)
    in_turns(site, tmp_path, 3)
    assert opened(site) == 4  # one, two | two, one | one, two
    assert len(site.worker().children()) == 1


def test_killing_models_that_wait(tmp_path: Path, make_site: MakeSite) -> None:
    """SIGKILL to processes that are idle is no attempt at anything; SIGKILL to the worker leaves none of them."""
    site = make_site()
    in_turns(site, tmp_path, 1)
    models = site.worker().children()
    assert len(models) == 2
    for model in models:
        model.kill()
    in_turns(site, tmp_path, 2)
    assert {(job["attempts_failed"], job["attempts_lost"]) for job in site.jobs()} == {(0, 0)}
    models = site.worker().children()
    site.worker().kill()
    _, alive = psutil.wait_procs(models, timeout=10)
    assert len(models) == 2
    assert not alive
