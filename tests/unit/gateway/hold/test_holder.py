"""Gathering evidence about open studies, on a real ledger with a clock that tests move."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.domain.evidence import PerformedStep, SeriesCount, SourceCount
from gateway.domain.ids import AETitle, AssociationId, SeriesUID, StudyUID
from gateway.domain.study import Study
from gateway.hold.assembly import Quarantine, Release, Verdict, Wait
from gateway.hold.holder import Holder, Wish
from gateway.hold.settings import Hold
from tests.support.ledgers import draft, make_ledger
from tests.support.received import SERIES, STUDY, instance

FIVE = Hold(quiet=5, limit=60)
START = 1_767_348_900.0


class Asked:
    """An inquiry that only writes down what it is to ask."""

    source = "PACS by C-FIND"

    def __init__(self) -> None:
        self.studies: list[StudyUID] = []

    def ask(self, studies: Sequence[StudyUID]) -> None:
        self.studies = list(studies)


class Site:
    """A ledger with one open association of CT1, and a holder over it."""

    def __init__(self, directory: Path, *, wishes: Sequence[Wish] = (Wish(hold=FIVE),), queryable: bool = True) -> None:
        self.ledger, self.inquiry, self.read = make_ledger(directory), Asked(), 0
        self.ledger.open_association(AssociationId("a1"), "CT1", "127.0.0.1")
        self.wishes = list(wishes)

        def inquiry_of(title: AETitle, address: str) -> Asked | None:
            return self.inquiry if queryable and (title, address) == ("CT1", "127.0.0.1") else None

        self.holder = Holder(
            self.ledger,
            self.ledger.clock,
            holds=[FIVE],
            wishes=self._wishes,
            inquiry_of=inquiry_of,
            inquiries=[self.inquiry],
        )

    def _wishes(self, _study: Study) -> Sequence[Wish]:
        self.read += 1
        return self.wishes

    def send(self, *numbers: int, release: bool = True) -> None:
        for number in numbers:
            self.ledger.add_instance(instance(number, at=self.ledger.clock.now()))
        if release:
            self.ledger.close_association(AssociationId("a1"), "released")

    def look(self, after: float) -> Verdict | None:
        """The verdict so many seconds after the start; None where there is no need to look."""
        self.ledger.clock.time = START + after  # type: ignore[attr-defined]
        found = list(self.holder.verdicts())
        return found[0][1] if found else None

    def answer(self, instances: int, **more: object) -> None:
        series = (SeriesCount(series_uid=SeriesUID(SERIES), modality="MR", instances=instances),)
        said = SourceCount(source="PACS by C-FIND", asked_at=self.ledger.clock.now(), series=series, **more)  # type: ignore[arg-type]
        self.ledger.add_evidence(STUDY, said)


@pytest.fixture
def site(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Site(tmp_path)
    yield made
    made.ledger.close()


def test_eight_slices_that_the_source_knows(site: Site) -> None:
    """Asked at the first moment of rest, released with the answer, and the reason says so."""
    site.send(*range(8))
    assert site.look(0.1) is None
    assert site.holder.next_look == pytest.approx(START + 0.3)
    assert isinstance(site.look(0.3), Wait)
    assert site.inquiry.studies == [STUDY]
    site.answer(8)
    verdict = site.look(0.31)
    assert isinstance(verdict, Release)
    assert "PACS by C-FIND reports 8 instances in 1 series, all here" in verdict.reason
    assert site.inquiry.studies == []


def test_a_source_that_knows_more(site: Site) -> None:
    """The study waits past its quiet time, the source is asked again, and what comes late settles it."""
    site.send(1, 2, release=False)
    site.look(5)
    site.answer(3)
    site.ledger.close_association(AssociationId("a1"), "released")
    assert isinstance(site.look(5.1), Wait)
    assert site.inquiry.studies == []
    assert isinstance(site.look(6), Wait)
    assert site.inquiry.studies == [STUDY]
    site.send(3)
    assert site.look(6.1) is None, "an answer is not taken for what came after it"
    assert isinstance(site.look(6.3), Wait)
    site.answer(3)
    assert isinstance(site.look(6.4), Release)


def test_a_source_that_does_not_answer(site: Site) -> None:
    """It holds nothing up."""
    site.send(1)
    site.look(0.3)
    site.ledger.add_evidence(
        STUDY, SourceCount(source="PACS by C-FIND", asked_at=site.ledger.clock.now(), problem="cannot connect")
    )
    assert isinstance(site.look(4.9), Wait)
    verdict = site.look(5)
    assert isinstance(verdict, Release)
    assert "gave no count (cannot connect)" in verdict.reason


def test_a_clock_that_is_put_back(site: Site) -> None:
    """An hour back: the quiet time begins again, and the study does not wait for an hour: F45."""
    site.send(1, 2)
    assert site.look(-3600) is None
    assert site.holder.next_look == pytest.approx(START - 3600 + 0.3)
    assert isinstance(site.look(-3600 + 4.9), Wait)
    verdict = site.look(-3600 + 5)
    assert isinstance(verdict, Release)
    assert "quiet for 5.0 s" in verdict.reason


def test_a_source_that_lies(site: Site) -> None:
    """It holds up to the limit and no longer."""
    site.send(1)
    site.look(0.3)
    site.answer(1000)
    assert isinstance(site.look(59.9), Wait)
    verdict = site.look(60)
    assert isinstance(verdict, Release)
    assert "999 of them not here" in verdict.flags[0]


def test_whoever_cannot_be_asked(tmp_path: Path) -> None:
    """A sender without a query, and rules that do not trust the count: nobody is asked."""
    for number, site in enumerate(
        (
            Site(_made(tmp_path / "a"), queryable=False),
            Site(_made(tmp_path / "b"), wishes=[Wish(hold=Hold(quiet=5, trust=("mpps",)))]),
        )
    ):
        site.send(number)
        assert isinstance(site.look(1), Wait)
        assert site.inquiry.studies == []
        site.ledger.close()


def test_while_somebody_is_connected(site: Site) -> None:
    """The source is asked once the quiet time is over, and its word then releases."""
    site.send(1, release=False)
    assert site.look(4.9) is None
    assert isinstance(site.look(5), Wait)
    assert site.inquiry.studies == [STUDY]
    site.answer(1)
    verdict = site.look(5.1)
    assert isinstance(verdict, Release)
    assert "1 association still open" in verdict.reason


def test_a_step_in_progress(site: Site) -> None:
    """MPPS that came before the images counts for them."""
    site.ledger.add_evidence(STUDY, PerformedStep(step_uid="1.9", source="CT1", status="IN PROGRESS"))
    site.send(1, 2)
    assert isinstance(site.look(10), Wait)
    done = PerformedStep(
        step_uid="1.9", source="CT1", status="COMPLETED", instances=(f"{SERIES}.1", f"{SERIES}.2", f"{SERIES}.3")
    )
    site.ledger.add_evidence(STUDY, done)
    assert isinstance(site.look(11), Wait)
    site.send(3)
    assert isinstance(site.look(11.3), Release)


def test_required_series_and_the_limit(site: Site) -> None:
    """What a rule cannot do without is waited for, then a person decides where the site says so."""
    strict = Hold(quiet=5, limit=60, at_limit="quarantine")
    site.wishes[:] = [Wish(hold=FIVE), Wish(hold=strict, required=2, unmet=("series.description == 'T1'",))]
    site.send(1)
    assert isinstance(site.look(59), Wait)
    verdict = site.look(60)
    assert isinstance(verdict, Quarantine)
    assert "1 of 2 required series here (none meets series.description == 'T1')" in verdict.reason


def test_instances_are_read_once(site: Site) -> None:
    """A study that waits is not read again until something comes, however often it is looked at."""
    site.send(1)
    for step in range(10):
        site.look(1 + step / 10)
    assert site.read == 1
    site.answer(2)
    site.look(3)
    assert site.read == 1
    site.ledger.add_instance(instance(2, at=START + 3))
    site.look(3.3)
    assert site.read == 2


@pytest.mark.parametrize(("pause", "inputs"), [(3, [8]), (6, [5, 8])])
def test_a_pause_of_the_sender(site: Site, pause: float, inputs: list[int]) -> None:
    """Shorter than the quiet time: one job. Longer: two input sets, and the second version takes the place of the first."""
    site.send(*range(5))
    jobs: list[str] = []
    for moment in (pause, pause + 5):
        for after in (moment - 0.1, moment):
            if isinstance(site.look(after), Release):
                jobs += _route(site, len(jobs) + 1)
        if moment == pause:
            site.send(5, 6, 7)
    assert [len(site.ledger.input_instances(job)) for job in jobs] == inputs  # type: ignore[arg-type]
    followed = {row["id"]: row["state"] for row in site.ledger.list_jobs()}
    assert [followed[job] for job in jobs] == ["superseded"] * (len(inputs) - 1) + ["queued"]


def _route(site: Site, number: int) -> Sequence[str]:
    record = site.ledger.open_studies()[0]
    assert site.ledger.release(record.uid, record.revision, "said so")
    return site.ledger.route(record.uid, record.revision, [draft(number)], "rule r")


def test_slices_that_are_missing(site: Site) -> None:
    """Out of order and with a gap: waited for, then run with a flag; where they come late, without one."""
    places = [number for number in (7, 2, 9, 0, 1, 3, 8, 6)]

    def store(number: int) -> None:
        made = instance(number, orientation=(1.0, 0, 0, 0, 1.0, 0), position=(0.0, 0.0, 2.5 * number))
        site.ledger.add_instance(dataclasses.replace(made, received_at=site.ledger.clock.now()))

    for number in places:
        store(number)
    site.ledger.close_association(AssociationId("a1"), "released")
    assert isinstance(site.look(14), Wait)
    verdict = site.look(15)
    assert isinstance(verdict, Release)
    assert verdict.flags == (
        "The study may be incomplete: 2 slices seem to be missing between others in 1 of 1 series.",
    )
    store(4)
    store(5)
    verdict = site.look(20)
    assert isinstance(verdict, Release)
    assert verdict.flags == ()


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_a_study_that_cannot_be_read_holds_up_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have their verdicts, and the defect is told."""
    other = StudyUID("1.2.3.9")
    site.send(1, release=False)
    site.ledger.add_instance(instance(2, study_uid=other, at=site.ledger.clock.now()))
    site.ledger.close_association(AssociationId("a1"), "released")
    wishes = site._wishes

    def broken(study: Study) -> Sequence[Wish]:
        if study.uid == STUDY:
            raise ZeroDivisionError
        return wishes(study)

    monkeypatch.setattr(site.holder, "_wishes", broken)
    site.ledger.clock.time = START + 6  # type: ignore[attr-defined]
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(record.uid for record, _ in site.holder.verdicts())
    assert found == [other]
