"""The rollout machine: playbooks, properties, and the diagrams in the documentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_contract.errors import Malformed
from edgefleet_fleet import device_moves
from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet import rollout_states as states
from edgefleet_fleet.cohort import EVERYBODY, Wave
from edgefleet_fleet.gates import GatePolicy
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.retries import Retries
from edgefleet_fleet.rollout_plan import ANYBODY, Plan
from edgefleet_fleet.rollout_states import Cause, Ending, NotInTable, State, WaveState
from edgefleet_fleet.roster import OPEN, Outcome
from tests.fleet.play import PI, Play, many, with_gate

DOCS = Path(__file__).parents[2] / "docs" / "design" / "rollout.md"
ALL = Plan("salt")
CANARY = Plan("salt", canaries=("d0",))
HALVES = Plan("salt", waves=(Wave(50), Wave(100)))


def begun(plan: Plan, count: int = 2, **more: object) -> Play:
    play = Play(plan, many(count), **more)  # type: ignore[arg-type]
    play.begin()
    return play


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


names = st.sampled_from([f"d{i}" for i in range(8)])
ends = st.sampled_from([Outcome.GOOD, Outcome.BAD, Outcome.UNDELIVERED, Outcome.REFUSED])
events = st.one_of(
    st.builds(r.Joined, names, st.sampled_from(["Pi 5", "Pi 3"])),
    st.builds(r.Answered, names, st.sampled_from([Outcome.STARTED, Outcome.ACTIVE])),
    st.builds(r.Ended, names, ends, st.booleans(), st.booleans()),
    names.map(r.Taken),
    names.map(r.Back),
    st.builds(
        r.Observed,
        st.sampled_from(["Pi 5", "Pi 3"]),
        st.builds(Evidence, requests=st.just(200), failures=st.sampled_from([0, 100])),
    ),
    st.sampled_from(
        [
            *(r.Paused(), r.Resumed(), r.Aborted(), r.Replaced(), r.Promoted(), r.Tick()),
            *(r.Aborted(Ending.REVERT), r.Approved("bob"), r.Denied("bob"), r.Started()),
        ]
    ),
)
policies = st.builds(
    GatePolicy,
    max_failures=st.one_of(st.none(), st.integers(1, 4)),
    canary_failures=st.integers(0, 2),
    min_sample=st.integers(0, 3),
    on_trip=st.sampled_from([None, *Ending]),
    silence_s=st.just(900),
    stall_s=st.sampled_from([0, 2000]),
)
plans = st.builds(
    Plan,
    salt=st.sampled_from(["x", "y", "z"]),
    waves=st.sampled_from(
        [EVERYBODY, (Wave(10), Wave(100)), (Wave(devices=2), Wave(50), Wave(100))]
    ),
    canaries=st.lists(names, max_size=2, unique=True).map(tuple),
    gate=policies,
    pace=st.sampled_from([Pace(), Pace(per_minute=4), Pace(at_once=2)]),
    retries=st.builds(Retries, most=st.integers(0, 2), wait_s=st.sampled_from([60, 900])),
    soak_s=st.sampled_from([0, 300]),
    start_at=st.sampled_from([0, 1500]),
    expires_at=st.sampled_from([0, 9000]),
    author=st.just("ada"),
    approve_by=st.sampled_from(["", "any"]),
)
fleets = st.dictionaries(names, st.sampled_from(["Pi 5", "Pi 3"]))
MAY_ASK = (State.SCHEDULED, State.PENDING_APPROVAL, State.DRAFT, State.RUNNING, State.COMPLETED)
STAYS = (
    *(Outcome.BAD, Outcome.REFUSED, Outcome.UNDELIVERED),
    *(Outcome.BLOCKED, Outcome.WITHDRAWN, Outcome.REVERTED),
)


@settings(max_examples=150, deadline=None)
@given(
    plans,
    fleets,
    st.lists(st.tuples(events, st.sampled_from([0, 1, 60, 1000])), max_size=40),
)
def test_whatever_happens_nobody_is_asked_twice_and_a_stop_is_a_stop(
    plan: Plan, devices: dict[str, str], happened: list[tuple[r.Event, int]]
) -> None:
    play = Play(plan, devices)
    play.begin()
    asked = list(play.asked)
    held: Counter[str] = Counter()
    for event, after in happened:
        before, members = play.rollout, dict(play.roster.members)
        try:
            commands = play.say(event, after=after)
        except (NotInTable, machine.NotAllowed):
            continue
        asks = [command.device for command in commands if isinstance(command, r.Ask)]
        if asks:
            may_resume = before.state is State.PAUSED and isinstance(event, r.Resumed)
            assert before.state in MAY_ASK or may_resume
        for device in set(asks) & set(asked):
            was_held = members[device].outcome is Outcome.HELD and isinstance(event, r.Resumed)
            held[device] += was_held
            assert was_held or members[device].tries
        asked += asks
        for device, count in Counter(asked).items():
            tries = play.member(device).tries
            assert count <= 1 + held[device] + min(tries, plan.retries.most)
        assert all(play.member(device).wave <= play.rollout.wave for device in asks)
        assert not {play.member(device).kind for device in asks} & set(before.blocked)
        assert play.rollout.wave >= before.wave
        assert play.rollout.ends[: len(before.ends)] == before.ends
        for device, member in members.items():
            now = play.member(device)
            assert now.wave == member.wave
            assert member.outcome not in STAYS or now.outcome is member.outcome
        if before.state.is_over and before.state is not State.COMPLETED:
            assert play.state is before.state
            assert not asks
        if play.state.is_over and play.state is not State.COMPLETED:
            waiting = (Outcome.PENDING, Outcome.HELD, Outcome.RETRYING)
            assert not play.roster.having((*OPEN, *waiting))


@settings(max_examples=40, deadline=None)
@given(plans, fleets.filter(bool))
def test_if_every_device_is_good_it_completes(plan: Plan, devices: dict[str, str]) -> None:
    play = Play(plan, devices)
    play.begin()
    if play.state is State.PENDING_APPROVAL:
        play.say(r.Approved("bob"))
    heard: set[str] = set()
    for _ in range(60):
        new = [device for device in play.asked if device not in heard]
        heard |= set(new)
        play.roster.heard = dict.fromkeys(devices, play.now + 60)  # all of them live
        play.good(*new)
        play.tick(60)
        if play.state is not State.SCHEDULED and play.state is not State.RUNNING:
            break
    assert play.state is State.COMPLETED
    assert {member.outcome for member in play.roster.members.values()} == {Outcome.GOOD}


@settings(max_examples=40, deadline=None)
@given(plans, fleets, st.sampled_from(["new-1", "new-2", "new-3"]))
def test_a_device_has_the_same_wave_whether_it_was_there_or_joins(
    plan: Plan, devices: dict[str, str], late: str
) -> None:
    fixed = plan.ends(devices)
    play = Play(plan, devices)
    play.begin()
    assert all(
        member.wave == plan.wave_of(device, fixed) for device, member in play.roster.members.items()
    )
    if play.rollout.is_enlisted:
        play.say(r.Joined(late, "Pi 5"))
        assert play.member(late).wave == plan.wave_of(late, fixed)


@pytest.mark.parametrize("drawn", [states.diagram, states.wave_diagram, device_moves.diagram])
def test_the_diagrams_in_the_documentation_are_printed_from_the_tables(drawn: object) -> None:
    assert callable(drawn)
    assert f"```mermaid\n{drawn()}\n```" in DOCS.read_text("utf-8")
