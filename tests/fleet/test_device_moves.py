"""The table of moves of a device: every row happens, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.device_moves import MOVES
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Ending, NotInTable
from edgefleet_fleet.roster import Outcome
from tests.fleet.play import Play, many, with_gate

PLAN = with_gate(Plan("salt", soak_s=600), block_after=0)
BLOCKS = with_gate(PLAN, block_after=3)
TRIPS = with_gate(PLAN, max_failures=1)
D0 = "d0"
ENDS = (Outcome.GOOD, Outcome.BAD, Outcome.REFUSED, Outcome.UNDELIVERED)


def say(*events: r.Event, after: int = 0) -> Callable[[Play], None]:
    def act(play: Play) -> None:
        for event in events:
            play.say(event, after=after)

    return act


def fail_others(play: Play) -> None:
    play.bad("d1", "d2", "d3", selftest=True)


def fail_asked(play: Play) -> None:
    play.bad(*play.asked, selftest=True)


def take_all(play: Play) -> None:
    for device in play.devices:
        play.say(r.Taken(device))


REACH: dict[Outcome, tuple[Callable[[Play], None], ...]] = {
    Outcome.ASKED: (),
    Outcome.STARTED: (say(r.Answered(D0, Outcome.STARTED)),),
    Outcome.ACTIVE: (say(r.Answered(D0, Outcome.ACTIVE)),),
    Outcome.SILENT: (say(r.Answered(D0, Outcome.ACTIVE)), say(r.Tick(), after=2000)),
    Outcome.RETRYING: (say(r.Ended(D0, Outcome.UNDELIVERED, may_retry=True)),),
    Outcome.HELD: (say(r.Ended("d1", Outcome.BAD)),),
    Outcome.GOOD: (say(r.Ended(D0, Outcome.GOOD)),),
    Outcome.REVERTING: (say(r.Ended(D0, Outcome.GOOD), r.Aborted(Ending.REVERT)),),
}
"""How a device comes to stand there."""
EVENTS: tuple[Callable[[Play], None], ...] = (
    *(say(r.Answered(D0, outcome)) for outcome in (Outcome.STARTED, Outcome.ACTIVE)),
    *(say(r.Ended(D0, outcome)) for outcome in ENDS),
    say(r.Ended(D0, Outcome.UNDELIVERED, may_retry=True)),
    say(r.Tick(), after=2000),
    say(r.Resumed()),
    say(r.Aborted()),
    say(r.Aborted(Ending.REVERT)),
    say(r.Replaced()),
    say(r.Taken(D0)),
    say(r.Back(D0)),
    say(r.Left(D0)),
    fail_others,
)


def moves(plan: Plan, *acts: Callable[[Play], None]) -> Iterator[tuple[Outcome, Outcome]]:
    """What happens to devices; every step is held against the table as well (`Play.say`)."""
    play = Play(plan, many(8))
    play.begin()
    for act in acts:
        try:
            act(play)
        except (NotInTable, machine.NotAllowed):
            continue
    yield from play.all_moves


def test_every_row_happens_and_nothing_else() -> None:
    seen: set[tuple[Outcome, Outcome]] = set()
    for plan in (PLAN, BLOCKS, TRIPS):
        for reach in REACH.values():
            for event in EVENTS:
                seen |= set(moves(plan, *reach, event))
    for events in ((fail_asked, take_all), (take_all,)):
        seen |= set(moves(replace(BLOCKS, pace=Pace(at_once=3)), *events))
    assert seen == {(old, new) for old, row in MOVES.items() for new in row}
