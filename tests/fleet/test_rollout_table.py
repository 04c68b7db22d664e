"""The rollout machine's table: what is not in it raises; the diagrams are printed from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_fleet import device_moves
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet import rollout_states as states
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Ending, NotInTable, State
from tests.fleet.play import ALL, Play

DOCS = Path(__file__).parents[2] / "docs" / "design" / "rollout.md"

_WORDS: list[tuple[r.Event, list[states.Trigger]]] = [
    (r.Paused(), [states.Trigger.OPERATOR_PAUSED]),
    (r.Resumed(), [states.Trigger.OPERATOR_RESUMED]),
    (r.Aborted(), [states.Trigger.OPERATOR_ABORTED]),
    (r.Aborted(Ending.REVERT), [states.Trigger.OPERATOR_REVERTED]),
    (r.Replaced(), [states.Trigger.REPLACED]),
    (r.Submitted(), [states.Trigger.SUBMITTED]),
    (r.Started(), [states.Trigger.DUE, states.Trigger.SUBMITTED]),
    (r.Approved("bob"), [states.Trigger.APPROVED]),
    (r.Denied("bob"), [states.Trigger.DENIED]),
]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(("event", "triggers"), _WORDS, ids=lambda value: type(value).__name__)
def test_what_is_not_in_the_table_raises_and_changes_nothing(
    state: State, event: r.Event, triggers: list[states.Trigger]
) -> None:
    play = Play(Plan("salt", approve_by="bob") if event == r.Approved("bob") else ALL)
    rollout = machine.Rollout(play.plan, state=state)
    into = {states.TRANSITIONS.get((state, trigger)) for trigger in triggers} - {None}
    if into:
        assert machine.step(rollout, play.roster, event, now=1).rollout.state in into
    else:
        with pytest.raises(NotInTable):
            machine.step(rollout, play.roster, event, now=1)


@pytest.mark.parametrize("drawn", [states.diagram, states.wave_diagram, device_moves.diagram])
def test_the_diagrams_in_the_documentation_are_printed_from_the_tables(drawn: object) -> None:
    assert callable(drawn)
    assert f"```mermaid\n{drawn()}\n```" in DOCS.read_text("utf-8")
