"""The install machine: how an order becomes a model; its table; what always holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_agent import install
from edgefleet_agent.device import Device
from edgefleet_agent.install_commands import (
    Activate,
    Download,
    Observe,
    Proceed,
    Reconsider,
    Restore,
    SelfTest,
    Settle,
    Stage,
)
from edgefleet_agent.install_events import (
    Activated,
    Begin,
    Booted,
    CanaryPassed,
    Downloaded,
    Event,
    Held,
    Interrupted,
    KeptDying,
    OrderRejected,
    OrderTaken,
    ProbationPassed,
    RollbackFailed,
    RolledBack,
    ServeFailed,
    ShadowPassed,
    Staged,
    StepFailed,
    TrialPassed,
    TrustSeen,
    WindowOpened,
    Withdrawn,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors
from tests.agent.playbook import careful, chosen, committed, every_step, happy, play, target
from tests.contract.makers import order_of


def test_an_order_becomes_a_committed_model() -> None:
    order = order_of(target(1))
    device, commands = play(Device(), *happy(order, chosen(1)))
    assert device.phase is Phase.COMMITTED
    assert device.slots == {"digits": chosen(1)}
    assert commands == [
        Proceed(),
        Download(order, (target(1),)),
        Stage((chosen(1),)),
        Proceed(),
        SelfTest((chosen(1),)),
        Activate((chosen(1),)),
        Observe((chosen(1),), order.policy),
        Settle(()),
    ]


def test_the_version_before_is_kept_for_a_way_back() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    assert device.slots["digits"] == chosen(2)
    assert device.previous["digits"] == chosen(1)


def test_an_order_for_what_already_runs_touches_nothing() -> None:
    device, commands = play(committed(1), OrderTaken(order_of(target(1), seq=5)), Begin())
    assert device.phase is Phase.COMMITTED
    assert device.seq == 5
    assert commands == [Proceed(), Settle(())]


def test_a_slot_that_is_not_ordered_any_more_is_stopped() -> None:
    device, commands = play(committed(1), OrderTaken(order_of(seq=2)), Begin())
    assert device.slots == {}
    assert commands[-1] == Settle(("digits",))


def test_a_failed_selftest_leaves_the_old_model_serving_and_quarantines_the_new() -> None:
    before = committed(1)
    device, commands = play(
        before,
        *happy(order_of(target(2), seq=2), chosen(2))[:5],
        StepFailed(Reason.GOLDEN_MISMATCH, "off by 3", "digits"),
    )
    assert device.phase is Phase.FAILED
    assert device.slots == before.slots
    assert device.quarantined == (target(2).bundle_sha256,)
    assert Activate((chosen(2),)) not in commands


def test_a_group_swaps_together_or_not_at_all() -> None:
    two = order_of(target(2), target(1, "vad"), seq=2)
    device, commands = play(
        committed(1), *happy(two, chosen(2), chosen(1, "vad"))[:6], StepFailed(Reason.LOAD_FAILED)
    )
    assert Activate((chosen(2), chosen(1, "vad"))) in commands
    assert commands[-1] == Restore((chosen(1),), ("vad",))
    assert device.slots == {"digits": chosen(1)}


def test_a_newer_order_cancels_one_that_has_not_begun_to_swap() -> None:
    newer = order_of(target(3), seq=3)
    for reached in range(1, 8):
        device, commands = play(
            committed(1), *every_step(careful(2, seq=2), chosen(2))[:reached], OrderTaken(newer)
        )
        assert device.phase is Phase.CANCELED, reached
        assert device.install is not None
        assert device.install.reason is Reason.SUPERSEDED
        assert commands[-2:] == [Settle(()), Reconsider(newer)]
        device, _ = play(device, OrderTaken(newer))
        assert device.phase is Phase.ACCEPTED
        assert (device.install and device.install.order, device.pending) == (newer, None)


def test_a_newer_order_waits_while_the_swap_is_on() -> None:
    newer = order_of(target(3), seq=3)
    device, _ = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:7],
        OrderTaken(newer),
    )
    assert device.phase is Phase.PROBATION
    device, commands = play(device, ProbationPassed())
    assert device.slots["digits"] == chosen(2)
    assert device.phase is Phase.COMMITTED
    assert commands[-1] == Reconsider(newer)
    device, commands = play(device, OrderTaken(newer))
    assert (device.phase, device.pending) == (Phase.ACCEPTED, None)


def test_metadata_that_were_seen_raise_the_floors_and_never_lower_them() -> None:
    device, _ = play(committed(1), TrustSeen(TrustFloors(2, 5, 5, 5), 900))
    device, _ = play(device, TrustSeen(TrustFloors(1, 9, 4, 5), 100))
    assert device.trust == TrustFloors(2, 9, 5, 5)


def test_a_rejected_order_uses_up_its_number_and_nothing_else() -> None:
    before = committed(1)
    device, commands = play(before, OrderRejected(order_of(target(2), seq=9), Reason.QUARANTINED))
    assert (device.seq, device.phase, device.slots) == (9, Phase.REJECTED, before.slots)
    assert commands == []


def test_a_pardon_lifts_the_quarantine_of_what_it_names() -> None:
    bad = target(2).bundle_sha256
    device = replace(committed(1), quarantined=(bad, Digest("c" * 64)))
    order = order_of(target(2), seq=2, policy=Policy(retry_quarantined=True))
    device, _ = play(device, OrderTaken(order))
    assert device.quarantined == (Digest("c" * 64),)


def test_what_is_not_in_the_table_raises_and_changes_nothing() -> None:
    with pytest.raises(install.IllegalStep, match="TrialPassed has no place"):
        install.step(committed(1), TrialPassed())


EVENTS = st.one_of(
    st.builds(
        lambda version, seq: OrderTaken(order_of(target(version), seq=seq)),
        st.integers(1, 5),
        st.integers(1, 50),
    ),
    st.just(Booted()),
    st.just(Begin()),
    st.integers(1, 5).map(lambda version: Downloaded((chosen(version),))),
    st.just(Interrupted("cut", 1_000, 0.5)),
    st.just(Held("budget", 1_000, 60.0)),
    st.sampled_from([Staged(), WindowOpened(), TrialPassed(), ShadowPassed(), CanaryPassed()]),
    st.sampled_from([Activated(), ProbationPassed(), RolledBack()]),
    st.integers(1, 5).map(lambda v: Withdrawn((target(v).bundle_sha256,), go_back=True)),
    st.sampled_from(list(Reason)).map(lambda reason: StepFailed(reason, "", "digits")),
    st.just(RollbackFailed()),
    st.just(ServeFailed("digits")),
    st.integers(1, 5).map(lambda v: KeptDying("digits", target(v).bundle_sha256)),
)


@settings(max_examples=300)
@given(st.lists(EVENTS, max_size=60))
def test_only_a_passed_trial_and_probation_change_what_is_committed(events: list[Event]) -> None:
    """Whatever comes in whatever order, a slot changes only by way of every step before it."""
    device = Device()
    trail: list[Phase] = []
    for event in events:
        before = device
        try:
            device, _ = install.step(device, event)
        except install.IllegalStep:
            continue
        if isinstance(event, OrderTaken) and device.phase is Phase.ACCEPTED:
            trail = []
        trail.append(device.phase)
        grown = {
            slot: item
            for slot, item in device.slots.items()
            if item not in (m.get(slot) for m in (before.slots, before.previous, before.fallback))
        }
        if grown:
            assert before.phase is Phase.PROBATION
            assert {Phase.SELFTEST, Phase.ACTIVATING, Phase.PROBATION} <= set(trail)
        assert device.time_floor >= before.time_floor


def test_the_table_names_every_phase_and_each_can_be_left_by_an_order_or_a_start() -> None:
    phases = {phase for phase, _ in install.TABLE}
    assert phases == set(Phase)
    for phase in Phase:
        assert (phase, Booted) in install.TABLE
        assert (phase, OrderTaken) in install.TABLE
