"""Devices that could not fetch a model are asked again: the machine, and the control room."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_contract.errors import Malformed
from edgefleet_contract.messages import render
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.topics import Channel
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet import watch
from edgefleet_fleet.cohort import Wave
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.plan_words import retries
from edgefleet_fleet.retries import Retries
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Cause, State, WaveState
from edgefleet_fleet.rollout_verbs import Verb
from edgefleet_fleet.roster import Outcome
from edgefleet_fleet.rounds import wake_at
from edgefleet_fleet.services import services_of
from tests.fleet.device import event_of
from tests.fleet.play import Play, many, with_gate
from tests.fleet.stage import ME, Clock, Stage

TWICE = Plan("salt", retries=Retries(2, 100))
BOTH = ("a", "b")


def begun(plan: Plan, count: int = 2) -> Play:
    play = Play(plan, many(count))
    play.begin()
    return play


def lose(play: Play, *devices: str) -> None:
    """Their downloads fail on the way."""
    for device in devices:
        play.say(r.Ended(device, Outcome.UNDELIVERED, may_retry=True))


def test_a_device_that_could_not_fetch_it_is_asked_again_after_a_wait_that_doubles() -> None:
    play = begun(TWICE)
    lose(play, "d0")
    assert play.outcome("d0") is Outcome.RETRYING
    assert play.commands[-1] == r.PutOff("d0")
    assert wake_at(play.rollout, play.now) == play.now + 100
    play.tick(99)
    assert play.asked.count("d0") == 1
    play.tick(1)
    assert (play.asked.count("d0"), play.outcome("d0")) == (2, Outcome.ASKED)
    lose(play, "d0")
    play.tick(199)
    assert play.asked.count("d0") == 2
    play.tick(1)
    assert play.asked.count("d0") == 3
    play.good("d0", "d1")
    assert (play.state, play.member("d0").tries) == (State.COMPLETED, 2)


def test_only_when_the_tries_are_used_up_the_budget_counts_it_and_once() -> None:
    play = begun(TWICE, 10)
    play.good(*(f"d{i}" for i in range(5)))
    for after in (100, 200):
        lose(play, *(f"d{i}" for i in range(5, 10)))
        assert play.is_running
        play.tick(after)
    lose(play, *(f"d{i}" for i in range(5, 9)))
    assert play.is_running
    lose(play, "d9")
    assert play.stopped_by is Cause.BUDGET
    assert "5 devices could not fetch it" in play.rollout.why
    assert {play.asked.count(f"d{i}") for i in range(5, 10)} == {3}
    play.say(r.Resumed())
    play.tick(10_000)
    assert play.state is State.COMPLETED
    assert len(play.asked) == 20


@pytest.mark.parametrize("plan", [TWICE, Plan("salt", retries=Retries(0))])
def test_what_another_try_cannot_change_is_not_tried_again(plan: Plan) -> None:
    play = begun(plan, 4)
    play.good("d1", "d2", "d3")
    play.say(r.Ended("d0", Outcome.UNDELIVERED, may_retry=plan is not TWICE))
    assert play.outcome("d0") is Outcome.UNDELIVERED
    assert play.state is State.COMPLETED


def test_a_wave_waits_for_a_device_that_is_asked_again() -> None:
    play = begun(Plan("salt", canaries=("d0",), waves=(Wave(100),), retries=Retries(1, 60)), 3)
    lose(play, "d0")
    play.tick(59)
    assert (play.asked, play.waves[0]) == (["d0"], WaveState.OPEN)
    play.tick(1)
    play.good("d0")
    assert len(play.asked) == 4


def test_with_a_sample_a_wave_goes_on_and_the_device_is_asked_again_all_the_same() -> None:
    play = begun(with_gate(TWICE, min_sample=2), 3)
    lose(play, "d0")
    assert play.is_running
    play.good("d1", "d2")
    assert play.state is State.COMPLETED
    assert wake_at(play.rollout, play.now) == play.now + 100
    play.tick(100)
    assert play.asked.count("d0") == 2
    play.good("d0")
    assert play.outcome("d0") is Outcome.GOOD


def test_tries_go_at_the_pace_of_the_rollout() -> None:
    plan = Plan("salt", pace=Pace(at_once=1), retries=Retries(1, 10))
    play = begun(plan, 3)
    for _ in range(3):
        lose(play, play.asked[-1])
    assert len(play.asked) == 3
    play.tick(100)
    assert len(play.asked) == 4


def test_while_it_is_paused_nobody_is_asked_again_and_resume_makes_up_for_it() -> None:
    play = begun(TWICE)
    lose(play, "d0")
    play.say(r.Paused())
    play.tick(500)
    assert play.asked.count("d0") == 1
    assert wake_at(play.rollout, play.now) == 0
    play.say(r.Resumed())
    assert play.asked.count("d0") == 2


@pytest.mark.parametrize("event", [r.Aborted(), r.Replaced(), r.Taken("d0"), r.Left("d0")], ids=str)
def test_what_ends_a_device_s_part_ends_its_wait(event: r.Event) -> None:
    play = begun(TWICE)
    lose(play, "d0")
    play.say(event)
    play.tick(10_000)
    assert play.asked.count("d0") == 1
    assert play.outcome("d0") in (Outcome.WITHDRAWN, Outcome.BLOCKED)


def test_a_class_on_which_it_fails_is_not_asked_again_either() -> None:
    devices = {f"new{i}": "Pi 5" for i in range(40)} | {f"old{i}": "Pi 3" for i in range(4)}
    play = Play(TWICE, devices)
    play.begin()
    play.good(*(f"new{i}" for i in range(39)))
    lose(play, "old3")
    play.bad("old0", "old1", "old2", selftest=True)
    assert play.outcome("old3") is Outcome.BLOCKED
    play.tick(10_000)
    assert play.asked.count("old3") == 1


def test_a_long_wait_is_no_stall() -> None:
    plan = Plan("salt", retries=Retries(1, 7200))
    play = begun(with_gate(plan, stall_s=3600), 1)
    lose(play, "d0")
    play.tick(7200)
    assert (play.state, play.asked) == (State.RUNNING, ["d0", "d0"])
    play.tick(3600)
    assert play.stopped_by is Cause.STALL


@pytest.mark.parametrize(
    ("text", "found"), [("", {}), ("0", {"most": 0}), ("3,wait=30m", {"most": 3, "wait_s": 1800})]
)
def test_how_it_is_said(text: str, found: dict[str, Any]) -> None:
    assert retries(text) == found


@pytest.mark.parametrize("text", ["-1", "x", "3,pause=1", "wait=soon"])
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        retries(text)


@pytest.mark.parametrize("words", [{"most": 11}, {"most": -1}, {"wait_s": 0}, {"wait_s": 99_999}])
def test_what_makes_no_sense_is_refused(words: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        Retries(**words)


def member(stage: Stage, rollout: str, name: str = "a") -> Any:
    return next(found for found in stage.view(rollout)["devices"] if found["device"] == name)


def tick(stage: Stage, clock: Clock, after: int) -> None:
    clock.now += after
    stage.services.deployments.tick()


def order_of(stage: Stage, name: str = "a") -> Order:
    found = stage.order(name)
    assert found is not None
    return found


def test_the_next_try_is_an_order_of_its_own_and_what_is_said_of_the_last_is_not_counted_again(
    stage: Stage, clock: Clock
) -> None:
    stage.devices(*BOTH)
    rollout = stage.roll_out(1, retries={"wait_s": 600})
    first = order_of(stage)
    stage.fail("a", Reason.DOWNLOAD_FAILED)
    assert stage.desired("a") == []  # nothing ran there before
    found = member(stage, rollout)
    assert (found["outcome"], found["tries"]) == ("retrying", 1)
    assert (found["retry_at"], found["reason"]) == (clock.now + 600, "download_failed")
    assert "try 1 failed, asked again at" in watch._why(found)
    assert stage.view(rollout)["counts"]["retrying"] == 1
    stage.services = services_of(stage.services.room, stage.services.publications)  # a restart
    tick(stage, clock, 600)
    again = order_of(stage)
    assert (again.seq, stage.desired("a")) == (first.seq + 2, [("digits", 1)])
    found = member(stage, rollout)
    assert (found["outcome"], found["phase"], found["reason"]) == ("asked", None, None)
    for seq in (7, 8):  # the end of the first try, late and anew
        late = event_of("a", first, Phase.FAILED, Reason.DOWNLOAD_FAILED, seq=seq)
        stage.take("a", Channel.EVENT, render(late))
        stage.report("a", first, Phase.FAILED, Reason.DOWNLOAD_FAILED)
    assert (member(stage, rollout)["outcome"], member(stage, rollout)["tries"]) == ("asked", 1)
    assert order_of(stage).seq == again.seq
    stage.commit("a")
    stage.commit("b")
    assert stage.state(rollout) == "completed"


def test_after_its_tries_a_device_is_undelivered_and_keeps_what_it_ran(
    stage: Stage, clock: Clock
) -> None:
    stage.devices("a")
    stage.roll_out(1)
    stage.commit("a")
    rollout = stage.roll_out(2, retries={"most": 1, "wait_s": 60})
    stage.fail("a", Reason.NOT_FOUND)
    assert stage.desired("a") == [("digits", 1)]
    stage.commit("a")
    assert member(stage, rollout)["outcome"] == "retrying"
    tick(stage, clock, 60)
    assert stage.desired("a") == [("digits", 2)]
    stage.fail("a", Reason.NOT_FOUND)
    found = member(stage, rollout)
    assert (found["outcome"], found["tries"], found["retry_at"]) == ("undelivered", 2, 0)
    assert watch._why(found).endswith("2 tries failed")
    assert (stage.state(rollout), stage.view(rollout)["cause"]) == ("paused", "budget")
    tick(stage, clock, 10_000)
    assert stage.desired("a") == [("digits", 1)]


def test_a_device_that_waits_for_its_next_try_takes_a_newer_rollout(
    stage: Stage, clock: Clock
) -> None:
    stage.devices(*BOTH)
    first = stage.roll_out(1, to="id=a|b")
    stage.fail("a", Reason.DOWNLOAD_FAILED)
    second = stage.roll_out(2, to="all")
    assert member(stage, first)["outcome"] == "withdrawn"
    tick(stage, clock, 10_000)
    assert stage.desired("a") == [("digits", 2)]
    assert stage.state(second) == "running"
    stage.services.deployments.steer(second, Verb.PAUSE, actor=ME)


def test_joining_later_it_is_asked_again_as_well(stage: Stage, clock: Clock) -> None:
    stage.devices("b")
    rollout = stage.roll_out(1)
    stage.commit("b")
    assert stage.state(rollout) == "completed"
    stage.devices("a")
    stage.fail("a", Reason.DOWNLOAD_FAILED)
    tick(stage, clock, 900)
    stage.commit("a")
    assert member(stage, rollout)["outcome"] == "good"
