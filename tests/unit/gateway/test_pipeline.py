"""The steps of the pipeline on a real ledger: what one study does to those behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.domain.errors import NotFound
from gateway.domain.ids import AssociationId, StudyUID
from gateway.letters import Letters
from gateway.pipeline import Pipeline
from gateway.route import selection
from gateway.store.ledger import SqlLedger
from gateway.store.spool import LocalSpool
from tests.support.ledgers import PACS, draft, make_ledger, outcome
from tests.support.received import STUDY, instance

FIRST, SECOND = StudyUID("1.2.1"), StudyUID("1.2.2")


def _pipeline(ledger: SqlLedger, **parts: Any) -> Pipeline:
    """With those of its parts that a step needs."""
    absent = dict.fromkeys(("spool", "broker", "holder", "retraction", "letters"))
    given: dict[str, Any] = {"rules": (), "models": {}, "roles": {}, "fallbacks": {}, "stranded_after": 1.0}
    return Pipeline(ledger=ledger, **(absent | given | parts))


def test_a_study_that_cannot_be_routed_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one behind it goes on, the defect is told, and the study itself is tried again in the next round."""
    ledger = make_ledger(tmp_path)
    ledger.open_association(AssociationId("a1"), "CT1", "127.0.0.1")
    for number, study in ((1, FIRST), (2, SECOND)):
        ledger.add_instance(instance(number, study_uid=study))
        assert ledger.release(study, 1, "quiet")
    pipeline = _pipeline(ledger)
    decide = selection.decide

    def broken(study: Any, *more: Any) -> selection.Decision:
        if study.uid == FIRST:
            raise ZeroDivisionError
        return decide(study, *more)

    monkeypatch.setattr(selection, "decide", broken)
    with pytest.raises(ZeroDivisionError):
        pipeline.route_complete()
    assert [record.uid for record in ledger.complete_studies()] == [FIRST]
    monkeypatch.setattr(selection, "decide", decide)
    pipeline.route_complete()
    assert ledger.complete_studies() == []
    ledger.close()


def test_a_result_whose_predecessor_cannot_be_withdrawn(tmp_path: Path) -> None:
    """Files of the older version are gone: a person sees it, and both versions in force is not what comes of it."""
    ledger = make_ledger(tmp_path)
    ledger.open_association(AssociationId("a1"), "CT1", "127.0.0.1")
    ledger.add_instance(instance(1))
    assert ledger.release(STUDY, 1, "quiet")
    made = draft(deliver=(PACS,))
    ledger.route(STUDY, 1, [made], "rule r")
    claim = ledger.claim("w", 60)
    assert claim is not None
    ledger.commit(claim, outcome(made.id))

    class Lost:
        def replaced(self, job: Any) -> None:
            raise NotFound("none of its results can be read any more")

    letters = Letters(ledger, LocalSpool(tmp_path / "spool"), {})
    _pipeline(ledger, retraction=Lost(), letters=letters, roles={PACS: frozenset({"seg"})}).plan_ready()
    (job,) = ledger.list_jobs(10)
    assert (job["state"], job["reason"]) == ("quarantined", "none of its results can be read any more")
    assert ledger.list_deliveries(10) == []
    ledger.close()
