"""The rollout machine: playbooks, properties, and the diagram in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_fleet import rollout as r
from edgefleet_fleet.gates import GatePolicy
from edgefleet_fleet.rollout import Ask, Cause, Outcome, State, Trigger, Withdraw, begin, step

DOCS = Path(__file__).parents[2] / "docs" / "design" / "rollout.md"
ALL = r.Plan("salt")
CANARY = r.Plan("salt", canaries=frozenset({"a"}))


def outcomes(rollout: r.Rollout) -> dict[str, Outcome]:
    return {device: member.outcome for device, member in rollout.members.items()}


def test_without_waves_everybody_is_asked_at_once() -> None:
    rollout, commands = begin(ALL, ("a", "b"))
    assert commands == (Ask("a"), Ask("b"))
    assert rollout.state is State.RUNNING


def test_it_completes_when_the_last_device_is_good() -> None:
    rollout, _ = begin(ALL, ("a", "b"))
    rollout, _ = step(rollout, r.Ended("a", good=True))
    assert rollout.state is State.RUNNING
    rollout, commands = step(rollout, r.Ended("b", good=True))
    assert (rollout.state, commands) == (State.COMPLETED, ())


def test_the_canary_is_asked_alone_and_the_others_after_it_is_good() -> None:
    rollout, commands = begin(CANARY, ("a", "b", "c"))
    assert commands == (Ask("a"),)
    rollout, commands = step(rollout, r.Ended("a", good=True))
    assert commands == (Ask("b"), Ask("c"))
    assert rollout.wave == 1


def test_a_bad_canary_pauses_it_and_is_told_to_go_back() -> None:
    rollout, _ = begin(CANARY, ("a", "b", "c"))
    rollout, commands = step(rollout, r.Ended("a", good=False))
    assert commands == (Withdraw("a"),)
    assert (rollout.state, rollout.cause) == (State.PAUSED, Cause.GATE)
    assert outcomes(rollout) == {"a": Outcome.BAD, "b": Outcome.PENDING, "c": Outcome.PENDING}


def test_resume_acknowledges_the_failures_and_opens_the_next_wave() -> None:
    rollout, _ = begin(CANARY, ("a", "b", "c"))
    rollout, _ = step(rollout, r.Ended("a", good=False))
    rollout, commands = step(rollout, r.Resumed())
    assert rollout.excused == 1
    assert commands == (Ask("b"), Ask("c"))
    rollout, _ = step(rollout, r.Ended("b", good=True))
    rollout, _ = step(rollout, r.Ended("c", good=True))
    assert rollout.state is State.COMPLETED


def test_three_devices_that_all_refuse_pause_it() -> None:
    rollout, _ = begin(ALL, ("a", "b", "c"))
    for device in ("a", "b"):
        rollout, _ = step(rollout, r.Ended(device, good=False))
        assert rollout.state is State.RUNNING
    rollout, _ = step(rollout, r.Ended("c", good=False))
    assert (rollout.state, rollout.cause) == (State.PAUSED, Cause.GATE)


def test_it_does_not_complete_with_too_few_good_devices() -> None:
    rollout, _ = begin(ALL, ("a", "b"))
    rollout, _ = step(rollout, r.Ended("a", good=True))
    rollout, _ = step(rollout, r.Ended("b", good=False))
    assert (rollout.state, rollout.cause) == (State.PAUSED, Cause.GATE)


def test_reports_of_a_paused_rollout_still_count() -> None:
    rollout, _ = begin(ALL, ("a", "b"))
    rollout, _ = step(rollout, r.Paused())
    rollout, _ = step(rollout, r.Ended("a", good=True))
    rollout, _ = step(rollout, r.Ended("b", good=True))
    assert rollout.state is State.PAUSED
    rollout, _ = step(rollout, r.Resumed())
    assert rollout.state is State.COMPLETED


def test_abort_takes_the_order_back_from_those_that_have_not_ended() -> None:
    rollout, _ = begin(ALL, ("a", "b"))
    rollout, _ = step(rollout, r.Ended("a", good=True))
    rollout, commands = step(rollout, r.Aborted())
    assert commands == (Withdraw("b"),)
    assert outcomes(rollout) == {"a": Outcome.GOOD, "b": Outcome.WITHDRAWN}


def test_a_device_that_joins_late_is_asked_in_its_wave() -> None:
    rollout, _ = begin(CANARY, ("a",))
    rollout, commands = step(rollout, r.Joined("late"))
    assert commands == ()
    rollout, commands = step(rollout, r.Ended("a", good=True))
    assert commands == (Ask("late"),)


def test_a_device_that_joins_after_completion_is_asked_at_once() -> None:
    rollout, _ = begin(ALL, ("a",))
    rollout, _ = step(rollout, r.Ended("a", good=True))
    rollout, commands = step(rollout, r.Joined("late"))
    assert (rollout.state, commands) == (State.COMPLETED, (Ask("late"),))
    rollout, _ = step(rollout, r.Ended("late", good=False))
    assert rollout.state is State.COMPLETED


def test_without_devices_it_waits_for_the_first() -> None:
    rollout, commands = begin(CANARY, ())
    assert (rollout.state, commands) == (State.RUNNING, ())
    rollout, commands = step(rollout, r.Joined("first"))
    assert commands == (Ask("first"),)
    rollout, _ = step(rollout, r.Ended("first", good=True))
    assert rollout.state is State.COMPLETED


def test_a_device_that_a_newer_rollout_takes_is_not_waited_for() -> None:
    rollout, _ = begin(ALL, ("a", "b"))
    rollout, _ = step(rollout, r.Ended("a", good=True))
    rollout, _ = step(rollout, r.Taken("b"))
    assert rollout.state is State.COMPLETED


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        (r.Paused(), Trigger.OPERATOR_PAUSED),
        (r.Resumed(), Trigger.OPERATOR_RESUMED),
        (r.Aborted(), Trigger.OPERATOR_ABORTED),
        (r.Replaced(), Trigger.REPLACED),
    ],
)
def test_what_is_not_in_the_table_raises_and_changes_nothing(
    state: State, event: r.Event, trigger: Trigger
) -> None:
    rollout = r.Rollout(ALL, state=state, members={"a": r.Member(0, Outcome.ASKED)})
    if (state, trigger) in r.TRANSITIONS:
        after, _ = step(rollout, event)
        assert after.state is r.TRANSITIONS[state, trigger]
    else:
        with pytest.raises(r.NotInTable, match=trigger.value):
            step(rollout, event)


names = st.sampled_from([f"d{i}" for i in range(8)])
events = st.one_of(
    names.map(r.Joined),
    st.builds(r.Ended, names, good=st.booleans()),
    names.map(r.Taken),
    st.sampled_from([r.Paused(), r.Resumed(), r.Aborted(), r.Replaced()]),
)
plans = st.builds(
    r.Plan,
    salt=st.sampled_from(["x", "y", "z"]),
    waves=st.sampled_from([(100,), (10, 100), (25, 50, 100)]),
    canaries=st.frozensets(names, max_size=2),
    gate=st.builds(GatePolicy, max_failures=st.one_of(st.none(), st.integers(1, 4))),
)
_FINAL = (Outcome.GOOD, Outcome.BAD, Outcome.WITHDRAWN)


@settings(max_examples=300, deadline=None)
@given(plans, st.lists(names, unique=True).map(tuple), st.lists(events, max_size=40))
def test_whatever_happens_nobody_is_asked_twice_and_ends_stay_ends(
    plan: r.Plan, devices: tuple[str, ...], happened: list[r.Event]
) -> None:
    rollout, commands = begin(plan, devices)
    asked = [command.device for command in commands if isinstance(command, Ask)]
    for event in happened:
        before = rollout
        try:
            rollout, commands = step(rollout, event)
        except r.NotInTable:
            assert rollout is before
            continue
        new = [command.device for command in commands if isinstance(command, Ask)]
        asked += new
        assert before.state in (State.RUNNING, State.PAUSED, State.COMPLETED) or not new
        assert all(rollout.members[device].wave <= rollout.wave for device in new)
        assert rollout.wave >= before.wave
        for device, member in before.members.items():
            if member.outcome in _FINAL:
                assert rollout.members[device] == member
        if before.state.is_over:
            assert rollout.state is before.state
        if rollout.state is State.PAUSED and before.state is State.PAUSED:
            assert not new
    assert len(asked) == len(set(asked))


@settings(max_examples=100, deadline=None)
@given(plans, st.lists(names, unique=True, min_size=1).map(tuple))
def test_if_every_device_is_good_it_completes(plan: r.Plan, devices: tuple[str, ...]) -> None:
    rollout, commands = begin(plan, devices)
    waiting = list(commands)
    while waiting:
        rollout, more = step(rollout, r.Ended(waiting.pop(0).device, good=True))
        waiting += more
    assert rollout.state is State.COMPLETED
    assert set(outcomes(rollout).values()) == {Outcome.GOOD}


def test_the_diagram_in_the_documentation_is_printed_from_the_table() -> None:
    assert f"```mermaid\n{r.diagram()}\n```" in DOCS.read_text("utf-8")
