"""What a rollout says that it waits for, at every place where it stands still."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.cohort import Wave
from edgefleet_fleet.model_gates import Envelope, Evidence, Kind, ModelGate
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.rollout_plan import ANYBODY, Plan
from edgefleet_fleet.rollout_states import Ending, State, WaveState
from edgefleet_fleet.roster import Outcome
from edgefleet_fleet.waiting import gate_views, waits_for
from tests.fleet.play import PI, Play, many

CANARY = Plan("salt", canaries=("d0",), soak_s=60)
ERRORS = ModelGate(Kind.ERRORS, 0.02)
SLOW = ModelGate(Kind.SLOW, 0.05)


def said(play: Play) -> tuple[str, ...]:
    return waits_for(play.rollout, now=play.now)


def begun(plan: Plan, count: int = 3) -> Play:
    play = Play(plan, many(count))
    play.begin()
    return play


def test_before_it_begins_it_waits_for_a_person_or_its_time() -> None:
    assert said(Play(CANARY)) == ("a person, who starts it",)
    assert said(begun(replace(CANARY, approve_by=ANYBODY))) == ("the approval of a second person",)
    assert said(begun(replace(CANARY, approve_by="ada"))) == ("the approval of ada",)
    assert said(begun(replace(CANARY, start_at=86400))) == ("its time, 1970-01-02 00:00:00 UTC",)


def test_while_devices_are_at_it_they_are_counted() -> None:
    play = begun(replace(CANARY, canaries=("d0", "d1")), 4)
    assert said(play) == ("an answer of 2 devices",)
    play.answering("d0")
    assert said(play) == ("1 device at work", "an answer of 1 device")


def test_a_device_that_is_asked_again_later_is_told_with_the_time() -> None:
    play = begun(Plan("salt"), 2)
    play.say(r.Ended("d0", Outcome.UNDELIVERED, may_retry=True))
    play.good("d1")
    assert len(said(play)) == 1
    assert said(play)[0].startswith("another try of 1 device, from 1970-01-01 ")


def test_what_the_pace_holds_back_is_said() -> None:
    assert "the pace: 2 devices to ask" in said(begun(Plan("salt", pace=Pace(at_once=1))))


def test_the_soak_has_an_end() -> None:
    play = begun(CANARY)
    play.good("d0")
    assert said(play) == ("the soak, until 1970-01-01 00:17:40 UTC",)


def test_gates_name_the_sample_that_they_miss_after_the_soak_too() -> None:
    play = begun(replace(CANARY, model_gates=(ERRORS,)))
    play.good("d0")
    play.tell(Evidence(requests=20))
    play.tick(100)
    assert play.waves[0] is WaveState.SOAK
    assert said(play) == ("gate errors: 20 of 100 requests seen",)
    play.tell(Evidence(requests=80))
    assert play.waves[0] is WaveState.PASSED


def test_a_gate_that_counts_devices_is_content_with_all_there_are() -> None:
    plan = replace(CANARY, soak_s=0, model_gates=(SLOW,), envelope=Envelope(p95_us=1000))
    play = begun(plan)
    play.good("d0")
    assert said(play) == ("gate slow: 0 of 1 devices seen",)
    play.tell(Evidence(measured=1))
    assert play.waves == [WaveState.PASSED, WaveState.OPEN]
    play.good("d1", "d2")
    assert said(play) == ("gate slow: 1 of 3 devices seen",)
    play.tell(Evidence(measured=2))
    assert said(play) == ()
    assert play.state is State.COMPLETED


def test_a_wave_that_nobody_is_in_waits_for_nothing() -> None:
    play = begun(
        Plan("salt", canaries=("d0",), waves=(Wave(50), Wave(100)), model_gates=(ERRORS,)), 1
    )
    play.good("d0")
    play.say(r.Promoted())
    assert play.state is State.COMPLETED


def test_a_person_may_go_on_without_the_sample() -> None:
    play = begun(replace(CANARY, model_gates=(ERRORS,)))
    play.good("d0")
    play.say(r.Promoted())
    assert play.waves == [WaveState.PASSED, WaveState.OPEN]
    play.good("d1", "d2")
    assert play.state is State.RUNNING
    play.say(r.Promoted())
    assert play.state is State.COMPLETED


def test_a_paused_one_waits_for_a_person_and_one_that_reverts_for_the_way_back() -> None:
    play = begun(CANARY)
    play.say(r.Paused())
    assert said(play) == ("a person, who resumes or aborts it",)
    play.say(r.Resumed())
    play.good("d0")
    play.say(r.Aborted(Ending.REVERT))
    assert said(play) == ("1 device on the way back",)
    play.say(r.Back("d0"))
    assert (play.state, said(play)) == (State.ABORTED, ())


def test_a_held_wave_waits_for_a_person_to_open_the_next() -> None:
    play = begun(replace(CANARY, soak_s=0, hold_after=(1,)))
    play.good("d0")
    assert said(play) == ("a person, who opens wave 2 of 2",)


def test_gates_are_read_for_each_class_and_how_near_they_are_to_a_stop() -> None:
    play = begun(replace(CANARY, model_gates=(ERRORS,)))
    (silent,) = gate_views(play.rollout)
    assert (silent.hardware, silent.sample, silent.needed, silent.counted) == (
        *("", 0, 100, "requests"),
    )
    play.tell(Evidence(requests=50, failures=0))
    play.tell(Evidence(requests=50, failures=3), "Raspberry Pi 3")
    ill, well = gate_views(play.rollout)
    assert (well.hardware, well.figure, well.certainty) == (PI, 0.0, 0.0)
    assert (ill.hardware, ill.figure) == ("Raspberry Pi 3", pytest.approx(0.06))
    assert 0.0 < ill.certainty < 1.0
