"""The page about states is drawn from the tables, and drawn again whenever they change."""

from __future__ import annotations

import re

from docs.states import PAGE, page
from gateway.domain.states import DELIVERY_TRANSITIONS, INBOUND_TRANSITIONS, JOB_TRANSITIONS, STUDY_TRANSITIONS


def test_the_page_is_up_to_date() -> None:
    """`python -m docs.states` would change nothing."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m docs.states`"


def test_every_transition_is_drawn() -> None:
    """Each entry of each table is an arrow of a diagram, and nothing else is."""
    arrows = re.findall(r"^    (\w+) --> (\w+): (.+)$", page(), re.MULTILINE)
    tables = [STUDY_TRANSITIONS, JOB_TRANSITIONS, DELIVERY_TRANSITIONS, INBOUND_TRANSITIONS]
    wanted = [(state.value, after.value, event.value) for table in tables for (state, event), after in table.items()]  # type: ignore[attr-defined]
    assert sorted(arrows) == sorted(wanted)
