"""The steps of the pipeline on a real ledger: what one study does to those behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.domain.ids import AssociationId, StudyUID
from gateway.pipeline import Pipeline
from gateway.route import selection
from tests.support.ledgers import make_ledger
from tests.support.received import instance

FIRST, SECOND = StudyUID("1.2.1"), StudyUID("1.2.2")


def test_a_study_that_cannot_be_routed_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one behind it goes on, the defect is told, and the study itself is tried again in the next round."""
    ledger = make_ledger(tmp_path)
    ledger.open_association(AssociationId("a1"), "CT1", "127.0.0.1")
    for number, study in ((1, FIRST), (2, SECOND)):
        ledger.add_instance(instance(number, study_uid=study))
        assert ledger.release(study, 1, "quiet")
    absent: Any = None
    pipeline = Pipeline(
        ledger=ledger, spool=absent, broker=absent, rules=(), models={}, holder=absent, roles={}, fallbacks={},
        retraction=absent, letters=absent, stranded_after=1.0,
    )  # fmt: skip
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
