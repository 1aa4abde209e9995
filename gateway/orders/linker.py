"""Links studies with what the EHR says of them."""

from __future__ import annotations

from gateway.domain.context import Order, StudyContext
from gateway.domain.ids import StudyUID
from gateway.domain.ports import Ledger, Spool
from gateway.orders.linking import link
from gateway.orders.request import images_of

_MOST_SERIES = 50  # of a study whose files are looked into


class Linker:
    """Works out a study's context from all facts there are."""

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger, self._spool = ledger, spool

    def look(self, uid: StudyUID) -> tuple[StudyContext, int] | None:
        """The context of a study and the number of the last fact in it; nothing where no image of others is left.

        From then on the study hears of every fact that may concern it.
        """
        study = self._ledger.study(uid)
        if not study.series:
            return None
        files = [self._spool.path(series.instances[0].file) for series in study.series[:_MOST_SERIES]]
        images = images_of(study, files)
        self._ledger.index_study(uid, images.keys())
        facts, seen = self._ledger.facts_about(images.keys())
        return link(images, facts), seen

    def order_of(self, uid: StudyUID) -> Order | None:
        """The order of a study as far as the EHR has told."""
        found = self.look(uid)
        return found[0].order[0] if found and found[0].order else None
