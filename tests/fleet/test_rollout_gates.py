"""What stops a rollout: failures, silence, budgets, stalls, what the model answers."""

from __future__ import annotations

import pytest

from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Cause, Ending, State, WaveState
from edgefleet_fleet.roster import Outcome
from tests.fleet.play import ALL, CANARY, PI, Play, begun, many, with_gate


def test_a_bad_canary_pauses_it_and_is_told_to_go_back() -> None:
    play = begun(CANARY, 3)
    play.bad("d0")
    assert play.withdrawn == ["d0"]
    assert play.stopped_by is Cause.GATE
    assert play.waves == [WaveState.FAILED, WaveState.PENDING]
    assert play.rollout.why == "among canaries, 1 of 1 devices failed"
    assert play.asked == ["d0"]


def test_resume_acknowledges_the_failures_and_opens_the_next_wave() -> None:
    play = begun(CANARY, 3)
    play.bad("d0")
    play.say(r.Resumed())
    assert sorted(play.asked) == ["d0", "d1", "d2"]
    play.good("d1", "d2")
    assert play.state is State.COMPLETED


def test_three_devices_that_all_fail_pause_it() -> None:
    play = begun(ALL, 9)
    play.bad("d0", "d1")
    assert play.is_running
    play.bad("d2")
    assert play.stopped_by is Cause.GATE


def test_what_is_bad_on_one_hardware_class_stops_it_though_the_fleet_is_well() -> None:
    devices = {f"good{i}": "Pi 5" for i in range(300)} | {f"old{i}": "Pi 3" for i in range(8)}
    play = Play(with_gate(ALL, block_after=0), devices)
    play.begin()
    play.good(*(f"good{i}" for i in range(300)))
    play.bad("old0", "old1")
    assert play.is_running
    play.bad("old2")
    assert play.stopped_by is Cause.GATE
    assert play.rollout.why.startswith("of Pi 3, 3 of 3 devices failed")


def test_failed_selftests_block_their_hardware_class_and_the_others_go_on() -> None:
    devices = {f"new{i}": "Pi 5" for i in range(40)} | {f"old{i}": "Pi 3" for i in range(8)}
    play = Play(ALL, devices)
    play.begin()
    play.good(*(f"new{i}" for i in range(39)))
    play.bad("old0", "old1", "old2", selftest=True)
    assert r.Block("Pi 3") in play.commands
    assert play.is_running
    assert [play.outcome(f"old{i}") for i in range(2, 8)] == [
        Outcome.BAD,
        *[Outcome.WITHDRAWN] * 5,
    ]
    play.good("new39")
    assert play.state is State.COMPLETED
    play.say(r.Joined("late", "Pi 3"))
    assert play.outcome("late") is Outcome.BLOCKED


def test_a_class_on_which_this_bundle_failed_before_is_not_asked() -> None:
    play = Play(ALL, {"a": "Pi 5", "b": "Pi 3"}, before=("Pi 3",))
    play.begin()
    assert play.asked == ["a"]
    play.good("a")
    assert play.state is State.COMPLETED


def test_where_every_class_is_blocked_it_stops() -> None:
    play = Play(ALL, many(5), before=(PI,))
    play.begin()
    assert (play.stopped_by, play.asked) == (Cause.GATE, [])


def test_it_does_not_complete_with_too_few_good_devices() -> None:
    play = begun(ALL)
    play.good("d0")
    play.bad("d1")
    assert play.stopped_by is Cause.GATE


def test_a_device_that_goes_silent_once_it_runs_the_model_has_failed() -> None:
    play = begun(CANARY)
    play.answering("d0")
    play.tick(800)
    assert play.is_running
    play.tick(300)
    assert (play.stopped_by, play.outcome("d0")) == (Cause.GATE, Outcome.SILENT)
    assert play.rollout.why == "among canaries, 1 (1 silent) of 1 devices failed"


def test_a_silent_device_that_is_heard_of_again_is_what_it_says() -> None:
    play = begun(with_gate(ALL, min_count=2))
    play.answering("d0")
    play.good("d1")
    play.tick(2000)
    assert play.outcome("d0") is Outcome.SILENT
    play.say(r.Resumed())
    play.good("d0")
    assert play.state is State.COMPLETED
    assert play.withdrawn == []


def test_silence_before_the_model_runs_is_no_failure_of_the_model() -> None:
    play = begun(CANARY)
    play.say(r.Answered("d0", Outcome.STARTED))
    play.tick(5000)
    assert play.is_running


def test_a_tripped_gate_holds_back_who_does_not_run_it_yet_and_resume_asks_them_again() -> None:
    play = begun(with_gate(ALL, max_failures=1), 4)
    play.answering("d0", "d1")
    play.say(r.Answered("d2", Outcome.STARTED))
    play.bad("d0")
    assert sorted(play.withdrawn) == ["d0", "d2", "d3"]
    assert [play.outcome(f"d{i}") for i in (1, 2, 3)] == [
        *(Outcome.ACTIVE, Outcome.HELD, Outcome.HELD),
    ]
    play.say(r.Resumed())
    assert sorted(play.asked[4:]) == ["d2", "d3"]
    play.good("d1", "d2", "d3")
    assert play.state is State.COMPLETED


def test_devices_that_cannot_fetch_it_have_a_budget_of_their_own() -> None:
    play = begun(ALL, 20)
    play.good(*(f"d{i}" for i in range(5)))
    for number in range(5, 9):
        play.say(r.Ended(f"d{number}", Outcome.UNDELIVERED))
    assert play.is_running
    play.say(r.Ended("d9", Outcome.REFUSED))
    assert play.stopped_by is Cause.BUDGET
    assert "4 devices could not fetch it and 1 refused it" in play.rollout.why
    play.say(r.Resumed())
    play.good(*(f"d{i}" for i in range(10, 20)))
    assert play.state is State.COMPLETED


def test_nothing_heard_for_long_pauses_it_as_a_stall() -> None:
    play = begun(with_gate(ALL, stall_s=3600))
    play.good("d0")
    play.tick(3000)
    assert play.is_running
    play.tick(700)
    assert play.stopped_by is Cause.STALL
    play.say(r.Resumed())
    play.good("d1")
    assert play.state is State.COMPLETED


def test_a_device_that_keeps_dying_after_its_commit_fails_the_soak() -> None:
    play = begun(Plan("salt", canaries=("d0",), soak_s=600))
    play.good("d0")
    play.bad("d0")
    assert play.stopped_by is Cause.GATE
    assert play.waves[0] is WaveState.FAILED


def test_a_device_that_is_gone_during_the_soak_is_silent() -> None:
    play = begun(Plan("salt", canaries=("d0",), soak_s=3600))
    play.good("d0")
    play.tick(1000)
    assert (play.stopped_by, play.outcome("d0")) == (Cause.GATE, Outcome.SILENT)


@pytest.mark.parametrize(
    ("ending", "state", "outcome"),
    [
        (Ending.KEEP, State.ABORTED, Outcome.GOOD),
        (Ending.REVERT, State.ABORTING, Outcome.REVERTING),
    ],
)
def test_a_tripped_gate_can_abort_by_itself(ending: Ending, state: State, outcome: Outcome) -> None:
    play = begun(with_gate(ALL, on_trip=ending, max_failures=1))
    play.good("d0")
    play.bad("d1")
    assert (play.state, play.rollout.cause) == (state, Cause.GATE)
    assert play.outcome("d0") is outcome


def test_what_the_model_answers_stops_it() -> None:
    play = begun(ALL, 20)
    play.good("d0", "d1", "d2")
    play.tell(Evidence(requests=400, failures=4))
    assert play.is_running
    play.tell(Evidence(requests=400, failures=90))
    assert play.stopped_by is Cause.GATE
    assert play.rollout.why.startswith(f"errors on {PI}: 0.117")
    play.say(r.Resumed())
    assert play.is_running
