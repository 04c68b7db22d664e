"""The course of a rollout: waves, pace, people who say so, and its ends."""

from __future__ import annotations

import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.cohort import Wave
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.rollout_plan import ANYBODY, Plan
from edgefleet_fleet.rollout_states import Cause, Ending, NotInTable, State, WaveState
from edgefleet_fleet.roster import Outcome
from tests.fleet.play import ALL, CANARY, HALVES, PI, Play, begun, many, with_gate


def test_without_waves_everybody_is_asked_at_once() -> None:
    play = begun(ALL)
    assert sorted(play.asked) == ["d0", "d1"]
    assert play.is_running


def test_it_completes_when_the_last_device_is_good() -> None:
    play = begun(ALL)
    play.good("d0")
    assert play.is_running
    play.good("d1")
    assert (play.state, play.withdrawn) == (State.COMPLETED, [])


def test_the_canary_is_asked_alone_and_the_others_after_it_is_good() -> None:
    play = begun(CANARY, 3)
    assert play.asked == ["d0"]
    play.good("d0")
    assert sorted(play.asked) == ["d0", "d1", "d2"]
    assert play.waves == [WaveState.PASSED, WaveState.OPEN]


def test_with_a_sample_a_wave_does_not_wait_for_devices_that_are_off() -> None:
    play = begun(with_gate(HALVES, min_sample=2), 40)
    first = list(play.asked)
    play.good(*first[:1])
    assert play.asked == first
    play.answering(first[2])
    play.good(first[1])
    assert play.asked == first  # one is at it
    play.good(first[2])
    assert play.asked == first  # the others had no time to answer yet
    play.tick(61)
    assert len(play.asked) == 40


def test_a_wave_soaks_before_the_next_opens() -> None:
    play = begun(Plan("salt", canaries=("d0",), soak_s=600))
    play.good("d0")
    assert play.waves == [WaveState.SOAK, WaveState.PENDING]
    play.tick(599)
    assert play.asked == ["d0"]
    play.tick(1)
    assert play.asked == ["d0", "d1"]


def test_after_a_manual_gate_a_person_opens_the_next_wave() -> None:
    play = begun(Plan("salt", canaries=("d0",), hold_after=(1,)))
    with pytest.raises(NotInTable):
        play.say(r.Promoted())
    play.good("d0")
    assert (play.asked, play.state) == (["d0"], State.RUNNING)
    play.say(r.Promoted())
    assert play.asked == ["d0", "d1"]


def test_a_second_person_approves_it() -> None:
    play = Play(Plan("salt", author="ada", approve_by=ANYBODY), many(1))
    play.begin()
    assert (play.state, play.asked) == (State.PENDING_APPROVAL, [])
    with pytest.raises(machine.NotAllowed, match="who asks"):
        play.say(r.Approved("ada"))
    play.say(r.Approved("bob"))
    assert (play.asked, play.rollout.approved_by) == (["d0"], "bob")


def test_where_somebody_is_named_nobody_else_approves_it() -> None:
    play = Play(Plan("salt", author="ada", approve_by="bob"), many(1))
    play.begin()
    with pytest.raises(machine.NotAllowed, match="bob"):
        play.say(r.Approved("eve"))
    play.say(r.Denied("bob"))
    assert (play.state, play.asked) == (State.DENIED, [])


def test_it_starts_when_its_time_comes_or_a_person_says_so() -> None:
    for event, after in ((r.Tick(), 500), (r.Started(), 0)):
        play = begun(Plan("salt", start_at=1500), 1)
        assert (play.state, play.asked) == (State.SCHEDULED, [])
        play.say(event, after=after)
        assert (play.state, play.asked) == (State.RUNNING, ["d0"])


def test_the_devices_are_those_that_are_there_when_it_starts() -> None:
    play = begun(Plan("salt", start_at=1500), 1)
    play.say(r.Joined("early", PI))
    play.devices = many(3)
    play.tick(500)
    assert sorted(play.asked) == ["d0", "d1", "d2"]


@pytest.mark.parametrize("start_at", [0, 3000])
def test_it_expires_and_takes_its_orders_back(start_at: int) -> None:
    play = begun(Plan("salt", start_at=start_at, expires_at=4000), 1)
    play.tick(3000)
    assert play.state is State.EXPIRED
    assert play.withdrawn == play.asked


def test_a_pace_asks_so_many_a_minute_and_a_ramp_raises_it() -> None:
    pace = Pace(per_minute=6, factor=2.0, every=3, max_per_minute=20)
    play = begun(Plan("salt", pace=pace), 60)
    assert len(play.asked) == 1
    play.tick(10)
    play.tick(10)
    assert len(play.asked) == 3
    play.good(*play.asked)
    play.tick(10)
    assert len(play.asked) == 5  # 12 a minute now
    play.good(*play.asked[3:])
    for _ in range(3):
        play.tick(10)
    assert len(play.asked) == 11


def test_no_more_than_so_many_are_at_work_at_once() -> None:
    play = begun(Plan("salt", pace=Pace(at_once=2)), 5)
    assert len(play.asked) == 2
    play.answering(*play.asked)
    play.tick(600)
    assert len(play.asked) == 2
    play.good(play.asked[0])
    assert len(play.asked) == 3


def test_devices_that_are_off_do_not_hold_the_places_of_others() -> None:
    play = begun(Plan("salt", pace=Pace(at_once=2)), 5)
    play.tick(61)
    assert len(play.asked) == 4


def test_abort_takes_the_order_back_from_those_that_have_not_ended() -> None:
    play = begun(ALL)
    play.good("d0")
    play.say(r.Aborted())
    assert (play.state, play.withdrawn) == (State.ABORTED, ["d1"])
    assert (play.outcome("d0"), play.outcome("d1")) == (Outcome.GOOD, Outcome.WITHDRAWN)


@pytest.mark.parametrize("ends", [1, 2])
def test_a_revert_sends_back_who_has_it_and_waits_for_them(ends: int) -> None:
    play = begun(ALL)
    play.good(*["d0", "d1"][:ends])
    play.say(r.Aborted(Ending.REVERT))
    assert (play.state, sorted(play.withdrawn)) == (State.ABORTING, ["d0", "d1"])
    play.say(r.Back("d0"))
    play.say(r.Back("d1"))
    assert play.state is State.ABORTED
    assert play.outcome("d0") is Outcome.REVERTED


def test_nobody_needs_to_wait_for_a_device_that_does_not_come_back() -> None:
    play = begun(ALL)
    play.good("d0", "d1")
    play.say(r.Aborted(Ending.REVERT))
    play.say(r.Aborted())
    assert play.state is State.ABORTED
    play.say(r.Back("d0"))
    assert play.outcome("d0") is Outcome.REVERTED


def test_reports_of_a_paused_rollout_still_count() -> None:
    play = begun(ALL)
    play.say(r.Paused())
    play.good("d0", "d1")
    assert play.stopped_by is Cause.OPERATOR
    play.say(r.Resumed())
    assert play.state is State.COMPLETED


def test_a_device_that_joins_late_is_asked_in_its_wave() -> None:
    play = begun(CANARY, 1)
    play.say(r.Joined("late", PI))
    assert play.asked == ["d0"]
    play.good("d0")
    assert play.asked == ["d0", "late"]


def test_a_device_that_joins_after_completion_is_asked_at_once() -> None:
    play = begun(ALL, 1)
    play.good("d0")
    play.say(r.Joined("late", PI))
    assert (play.state, play.asked) == (State.COMPLETED, ["d0", "late"])
    play.bad("late")
    assert play.state is State.COMPLETED


def test_without_devices_it_waits_for_the_first() -> None:
    play = begun(CANARY, 0)
    assert (play.state, play.asked) == (State.RUNNING, [])
    play.say(r.Joined("first", PI))
    assert play.asked == ["first"]
    play.good("first")
    assert play.state is State.COMPLETED


def test_a_device_that_a_newer_rollout_takes_is_not_waited_for() -> None:
    play = begun(ALL)
    play.good("d0")
    play.say(r.Taken("d1"))
    assert play.state is State.COMPLETED


@pytest.mark.parametrize(
    "more",
    [
        {"approve_by": "ada"},
        {"expires_at": 5, "start_at": 5},
        {"hold_after": (1,)},
        {"soak_s": -1},
        {"waves": (Wave(50),)},
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        Plan("salt", author="ada", **more)  # type: ignore[arg-type]
