"""How long a study waits that is complete: from its last slice to its job, where the PACS knows how many slices there are."""

from __future__ import annotations

from pathlib import Path

from gateway.commands.orthanc import DemoOrthanc
from gateway.deliver.orthanc import OrthancAdmin
from gateway.testing import FakeEhr
from tests.benchmarks.receivers import progress
from tests.support.block import write_block
from tests.support.bundles import write_bundle
from tests.support.neighbours import Neighbours
from tests.support.site import Site, send

_SLICES = slice(6, 14)
_LONG = {"quiet": "10m", "limit": "1h"}  # no study here is released because time has passed


def table(folder: Path, rounds: int) -> None:
    """Prints least, middle and most seconds between the last of eight slices and the start of the job."""
    print(f"\n**Eight slices that the PACS counts (C-FIND), {rounds} studies**\n")
    print("| from the last slice, s | least | middle | most |")
    print("|---|---|---|---|")
    orthanc = DemoOrthanc(folder / "pacs", 1)
    with FakeEhr() as ehr:
        orthanc.start()
        try:
            waits = _waits(folder, Neighbours(orthanc=orthanc, ehr=ehr, admin=OrthancAdmin(orthanc.url)), rounds)
        finally:
            orthanc.stop()
    for name, found in zip(("released", "job started"), zip(*waits, strict=True), strict=True):
        each = sorted(found)
        print(f"| {name} | {each[0]:.2f} | {each[len(each) // 2]:.2f} | {each[-1]:.2f} |", flush=True)


def _waits(folder: Path, neighbours: Neighbours, rounds: int) -> list[tuple[float, float]]:
    """For each study, seconds from its last slice to its release and to the start of its job."""
    configuration = neighbours.configuration(str(write_bundle(folder / "bundle")))
    port = neighbours.orthanc.dicom_port
    query = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": port}
    peers = [{"ae_title": title, "host": "127.0.0.1", "query": query} for title in ("SCANNER", "ORTHANC")]
    configuration |= {"dicom": {"peers": peers}, "rules": [configuration["rules"][0] | {"hold": _LONG}]}
    waits: dict[str, tuple[float, float]] = {}  # by study
    with Site(folder / "site", configuration) as site:
        site.wait_for(lambda: site.worker().children(), "the model's process")
        for number in range(rounds):
            progress(f"study {number + 1} of {rounds}")
            files = write_block(folder / f"study-{number}", seed=str(number))[_SLICES]
            send(files, port, called="ORTHANC")
            site.send(files)
            jobs = site.wait_for_jobs(number + 1, "delivered")
            (study,) = {job["study_uid"] for job in jobs} - set(waits)
            waits[study] = _story(site, study)
    return list(waits.values())


def _story(site: Site, study: str) -> tuple[float, float]:
    told = site.ledger.explain(study)
    at = {event["what"]: event["at"] for event in told["events"]}
    last = told["study"]["last_stored_at"]
    return at["study released"] - last, at["job started"] - last
