"""What holds for a rollout whatever happens."""

from __future__ import annotations

from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.cohort import EVERYBODY, Wave
from edgefleet_fleet.gates import GatePolicy
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.pace import Pace
from edgefleet_fleet.retries import Retries
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Ending, NotInTable, State
from edgefleet_fleet.roster import OPEN, Outcome
from tests.fleet.play import Play

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

WAITED = (Outcome.HELD, Outcome.PENDING)

PACED = Plan(
    salt="x",
    waves=EVERYBODY,
    canaries=(),
    gate=GatePolicy(None, canary_failures=0, min_sample=0, on_trip=None, silence_s=900, stall_s=0),
    pace=Pace(per_minute=4),
    retries=Retries(most=0, wait_s=60),
    soak_s=0,
    start_at=0,
    expires_at=0,
    author="ada",
    approve_by="",
)
FAILING = r.Observed("Pi 5", Evidence(requests=200, failures=100))


@settings(max_examples=150, deadline=None)
@example(PACED, {"d0": "Pi 5"}, [(FAILING, 0), (r.Resumed(), 0), (r.Taken("d1"), 60)])
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
    let_go: set[str] = set()  # held, then resumed, and not asked since: the pace may make them wait
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
        if isinstance(event, r.Resumed):
            let_go |= {device for device, m in members.items() if m.outcome is Outcome.HELD}
        for device in set(asks) & set(asked):
            was_held = device in let_go and members[device].outcome in WAITED
            held[device] += was_held
            assert was_held or members[device].tries
        let_go -= set(asks)
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
