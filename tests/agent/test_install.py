"""The install machine: playbooks, and what holds for every sequence of events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_agent import install, transitions
from edgefleet_agent.device import (
    Activate,
    Activated,
    AwaitWindow,
    Begin,
    Booted,
    CanaryPassed,
    Device,
    Download,
    Downloaded,
    Event,
    Held,
    Installed,
    Interrupted,
    KeptDying,
    Observe,
    OrderRejected,
    OrderTaken,
    ProbationPassed,
    Proceed,
    Reconsider,
    Restore,
    RollbackFailed,
    RolledBack,
    RunCanary,
    RunShadow,
    SelfTest,
    Serve,
    ServeFailed,
    Settle,
    ShadowPassed,
    Spent,
    Stage,
    Staged,
    StepFailed,
    TrialPassed,
    TrustSeen,
    WindowOpened,
    Withdrawn,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import Canary, Policy, Shadow, Window
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import TrustFloors
from tests.contract.makers import order_of


def target(version: int, slot: str = "digits") -> Target:
    return Target(slot, slot, version, Digest(f"{version:064x}"), Digest("b" * 64), 100)


def chosen(version: int, slot: str = "digits") -> Installed:
    return Installed(target(version, slot), "onnx-int8", "onnxruntime")


def play(device: Device, *events: Event) -> tuple[Device, list[object]]:
    commands: list[object] = []
    for event in events:
        device, more = install.step(device, event)
        commands += more
    return device, commands


def happy(order: Order, *items: Installed) -> tuple[Event, ...]:
    return (
        OrderTaken(order),
        Begin(),
        Downloaded(items),
        Staged(),
        Begin(),
        TrialPassed(),
        Activated(),
        ProbationPassed(),
    )


def committed(version: int = 1) -> Device:
    return play(Device(), *happy(order_of(target(version), seq=version), chosen(version)))[0]


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


def test_a_bad_transfer_is_not_held_against_the_bundle() -> None:
    device, _ = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:2],
        StepFailed(Reason.DIGEST_MISMATCH),
    )
    assert device.phase is Phase.FAILED
    assert device.quarantined == ()


@pytest.mark.parametrize("at", ["activating", "probation"])
def test_a_model_that_does_not_serve_is_rolled_back(at: str) -> None:
    before = committed(1)
    reached = 6 if at == "activating" else 7
    device, commands = play(
        before,
        *happy(order_of(target(2), seq=2), chosen(2))[:reached],
        StepFailed(Reason.PROBATION_FAILED, "its worker died", "digits"),
        RolledBack(),
    )
    assert device.phase is Phase.ROLLED_BACK
    assert device.install is not None
    assert device.install.reason is Reason.PROBATION_FAILED
    assert device.slots == before.slots
    assert Restore((chosen(1),), ()) in commands


def test_a_first_model_that_fails_leaves_a_device_with_none() -> None:
    device, commands = play(
        Device(),
        *happy(order_of(target(1)), chosen(1))[:6],
        StepFailed(Reason.ACTIVATION_FAILED),
        RolledBack(),
    )
    assert device.slots == {}
    assert Restore((), ("digits",)) in commands


def test_a_rollback_that_fails_is_said() -> None:
    device, _ = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:6],
        StepFailed(Reason.ACTIVATION_FAILED, "no memory"),
        RollbackFailed("still no memory"),
    )
    assert device.phase is Phase.ROLLBACK_FAILED
    assert device.install is not None
    assert device.install.detail == "no memory; going back failed: still no memory"


def test_a_disk_that_spoils_what_it_is_given_ends_the_install() -> None:
    """Each download succeeds, so that only what is counted apart ends it."""
    rotten = Interrupted("it changed", 1_000, 0.5, reason=Reason.STORAGE_FAILED)
    device, _ = play(Device(), OrderTaken(order_of(target(1), seq=1)), Begin())
    for _ in range(transitions.MAX_SPOILT):
        device, commands = play(device, Downloaded((chosen(1),)), rotten)
        assert isinstance(commands[-1], Download)
    device, _ = play(device, Downloaded((chosen(1),)), rotten)
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.FAILED, Reason.STORAGE_FAILED)
    assert device.quarantined == ()


def test_a_group_swaps_together_or_not_at_all() -> None:
    two = order_of(target(2), target(1, "vad"), seq=2)
    device, commands = play(
        committed(1), *happy(two, chosen(2), chosen(1, "vad"))[:6], StepFailed(Reason.LOAD_FAILED)
    )
    assert Activate((chosen(2), chosen(1, "vad"))) in commands
    assert commands[-1] == Restore((chosen(1),), ("vad",))
    assert device.slots == {"digits": chosen(1)}


def careful(version: int, seq: int) -> Order:
    """An order that goes by way of every phase."""
    policy = Policy(windows=(Window("02:00", 60),), shadow=Shadow(10), canary=Canary(20))
    return order_of(target(version), seq=seq, policy=policy)


def every_step(order: Order, *items: Installed) -> tuple[Event, ...]:
    plain = happy(order, *items)
    careful_ones = (WindowOpened(), TrialPassed(), ShadowPassed(), CanaryPassed())
    return (*plain[:5], *careful_ones, *plain[6:])


def test_window_shadow_and_canary_come_in_turn_where_the_policy_asks() -> None:
    order = careful(2, seq=2)
    device, commands = play(committed(1), *every_step(order, chosen(2)))
    assert device.slots["digits"] == chosen(2)
    assert commands[4:8] == [
        AwaitWindow(order),
        SelfTest((chosen(2),)),
        RunShadow((chosen(2),), Shadow(10)),
        RunCanary((chosen(2),), Canary(20)),
    ]


def test_a_canary_needs_no_shadow_before_it() -> None:
    order = order_of(target(2), seq=2, policy=Policy(canary=Canary(20)))
    device, commands = play(committed(1), *happy(order, chosen(2))[:5], TrialPassed())
    assert device.phase is Phase.CANARY
    assert commands[-1] == RunCanary((chosen(2),), Canary(20))


def test_a_first_model_has_nothing_to_stand_beside() -> None:
    events = every_step(careful(1, seq=1), chosen(1))
    device, _ = play(Device(), *events[:7])
    assert device.phase is Phase.ACTIVATING


def test_an_install_ends_with_its_order_where_no_window_opens() -> None:
    device, commands = play(
        committed(1),
        *every_step(careful(2, seq=2), chosen(2))[:5],
        StepFailed(Reason.ORDER_EXPIRED),
    )
    assert (device.phase, device.quarantined) == (Phase.FAILED, ())
    assert device.slots["digits"] == chosen(1)
    assert commands[-1] == Settle(())


def test_a_candidate_that_disagrees_in_shadow_is_quarantined_and_never_serves() -> None:
    device, commands = play(
        committed(1),
        *every_step(careful(2, seq=2), chosen(2))[:7],
        StepFailed(Reason.SHADOW_DISAGREED, "71 % agree", "digits"),
    )
    assert (device.phase, device.slots["digits"]) == (Phase.FAILED, chosen(1))
    assert device.quarantined == (target(2).bundle_sha256,)
    assert Activate((chosen(2),)) not in commands


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


def test_an_order_that_waits_survives_a_power_cut() -> None:
    newer = order_of(target(3), seq=3)
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2))[:2], OrderTaken(newer))
    device, commands = play(device, Booted())
    assert commands[-1] == Reconsider(newer)


def test_a_file_that_rotted_before_its_trial_is_fetched_again() -> None:
    device, commands = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:3],
        Interrupted("digits has changed on the disk", now=1_000, jitter=0.0),
    )
    assert device.phase is Phase.DOWNLOADING
    assert isinstance(commands[-1], Download)


def test_waiting_for_a_budget_is_not_counted_as_a_failure_but_its_bytes_are() -> None:
    order = order_of(target(1), policy=Policy(max_bytes_per_day=100))
    device, _ = play(Device(), *happy(order)[:2])
    for _ in range(transitions.MAX_DOWNLOADS + 5):
        device, commands = play(device, Held("budget", now=90_000, wait_s=60.0, transferred=2))
        assert device.phase is Phase.DOWNLOADING
    assert device.spent == Spent(1, 70)
    assert device.spent.left(90_000, 100) == 30
    assert device.spent.left(180_000, 100) == 100
    assert isinstance(commands[-1], Download)
    assert (commands[-1].delay_s, commands[-1].spent) == (60.0, Spent(1, 70))
    device, _ = play(device, Held("budget", now=order.expires + 1, wait_s=60.0))
    assert device.install is not None
    assert device.install.reason is Reason.ORDER_EXPIRED


def test_a_pause_that_a_server_asks_for_is_kept_within_an_hour() -> None:
    device, _ = play(Device(), *happy(order_of(target(1)))[:2])
    _, commands = play(device, Interrupted("busy", now=1, jitter=0.0, wait_s=120.0))
    assert isinstance(commands[0], Download)
    assert commands[0].delay_s == 120.0
    _, commands = play(device, Interrupted("busy", now=1, jitter=0.0, wait_s=1e9))
    assert isinstance(commands[0], Download)
    assert commands[0].delay_s == transitions.MAX_WAIT_S


def test_a_broken_download_is_taken_up_again_later_and_later() -> None:
    device, _ = play(Device(), *happy(order_of(target(1)), chosen(1))[:2])
    delays = []
    for _ in range(transitions.MAX_DOWNLOADS):
        device, commands = play(device, Interrupted("cut", now=1_000, jitter=0.5))
        (again,) = commands
        assert isinstance(again, Download)
        delays.append(again.delay_s)
    assert delays == sorted(delays)
    assert delays[-1] <= transitions.MAX_BACKOFF_S
    device, _ = play(device, Interrupted("cut", now=1_000, jitter=0.5))
    assert device.install is not None
    assert device.install.reason is Reason.DOWNLOAD_FAILED


def test_a_file_that_no_source_has_is_asked_for_a_few_times_and_then_not_found() -> None:
    device, _ = play(Device(), *happy(order_of(target(1)), chosen(1))[:2])
    gone = Interrupted("404", now=1_000, jitter=0.5, reason=Reason.NOT_FOUND)
    for _ in range(transitions.MAX_MISSING):
        device, commands = play(device, gone)
        assert isinstance(commands[-1], Download)
    device, _ = play(device, gone)
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.FAILED, Reason.NOT_FOUND)


def test_a_candidate_that_fails_as_a_canary_is_quarantined_and_the_old_one_serves() -> None:
    device, commands = play(
        committed(1),
        *every_step(careful(2, seq=2), chosen(2))[:8],
        StepFailed(Reason.CANARY_FAILED, "its worker died", "digits"),
    )
    assert (device.phase, device.slots["digits"]) == (Phase.FAILED, chosen(1))
    assert device.quarantined == (target(2).bundle_sha256,)
    assert Activate((chosen(2),)) not in commands


def test_a_newer_order_ends_a_canary() -> None:
    device, _ = play(
        committed(1),
        *every_step(careful(2, seq=2), chosen(2))[:8],
        OrderTaken(careful(3, seq=3)),
    )
    assert (device.phase, device.quarantined) == (Phase.CANCELED, ())
    assert device.pending == careful(3, seq=3)


def test_a_download_ends_with_its_order() -> None:
    order = order_of(target(1))
    device, _ = play(
        Device(), *happy(order)[:2], Interrupted("cut", now=order.expires + 1, jitter=0.0)
    )
    assert device.install is not None
    assert device.install.reason is Reason.ORDER_EXPIRED


@pytest.mark.parametrize("reached", range(1, 11))
def test_a_power_cut_at_any_step_ends_in_the_new_version(reached: int) -> None:
    """Cut once after each step: what is committed serves first, then the install goes on."""
    device, _ = play(committed(1), *every_step(careful(2, seq=2), chosen(2))[:reached])
    served = device.slots["digits"]
    device, commands = play(device, Booted())
    assert commands[0] == Serve((served,))
    while device.phase is not Phase.COMMITTED:
        answer = {
            Phase.ACCEPTED: Begin(),
            Phase.DOWNLOADING: Downloaded((chosen(2),)),
            Phase.VERIFIED: Staged(),
            Phase.STAGED: Begin(),
            Phase.WAIT_WINDOW: WindowOpened(),
            Phase.SELFTEST: TrialPassed(),
            Phase.SHADOW: ShadowPassed(),
            Phase.CANARY: CanaryPassed(),
            Phase.ACTIVATING: Activated(),
            Phase.PROBATION: ProbationPassed(),
        }[device.phase]
        device, _ = play(device, answer)
    assert device.slots["digits"] == chosen(2)


@pytest.mark.parametrize(
    ("until", "ends"),
    [
        (Phase.SELFTEST, Phase.FAILED),
        (Phase.SHADOW, Phase.FAILED),
        (Phase.CANARY, Phase.FAILED),
        (Phase.ACTIVATING, Phase.ROLLED_BACK),
        (Phase.PROBATION, Phase.ROLLED_BACK),
    ],
)
def test_a_model_that_takes_the_power_with_it_is_given_up(until: Phase, ends: Phase) -> None:
    on = {
        Phase.VERIFIED: Staged(),
        Phase.STAGED: Begin(),
        Phase.WAIT_WINDOW: WindowOpened(),
        Phase.SELFTEST: TrialPassed(),
        Phase.SHADOW: ShadowPassed(),
        Phase.CANARY: CanaryPassed(),
        Phase.ACTIVATING: Activated(),
    }
    device, _ = play(committed(1), *every_step(careful(2, seq=2), chosen(2))[:3])
    cuts = 0
    while not device.phase.is_final:
        while device.phase is not until:
            device, _ = play(device, on[device.phase])
        cuts += 1
        assert cuts <= transitions.MAX_STARTS + 1
        device, _ = play(device, Booted())
    assert device.phase is ends
    assert device.slots["digits"] == chosen(1)
    assert device.quarantined == (target(2).bundle_sha256,)


def test_a_power_cut_while_going_back_goes_back() -> None:
    device, _ = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:6],
        StepFailed(Reason.ACTIVATION_FAILED),
    )
    device, commands = play(device, Booted())
    assert device.phase is Phase.ROLLED_BACK
    assert commands[0] == Serve((chosen(1),))


def test_a_committed_model_that_is_lost_falls_back_to_the_one_before() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, commands = play(device, Booted(), ServeFailed("digits", "changed on the disk"))
    assert device.slots["digits"] == chosen(1)
    assert commands[-1] == Serve((chosen(1),))
    again, nothing = play(device, ServeFailed("digits", "that one too"))
    assert (again, nothing) == (device, [])


def test_the_first_release_is_the_fallback_until_an_order_names_another() -> None:
    device = committed(1)
    for version in (2, 3):
        device, _ = play(device, *happy(order_of(target(version), seq=version), chosen(version)))
    assert device.fallback["digits"] == chosen(1)
    assert set(device.kept) == {chosen(1), chosen(2), chosen(3)}
    for left in (chosen(2), chosen(1)):
        device, commands = play(device, ServeFailed("digits", "it does not load"))
        assert commands[-1] == Serve((left,))
    again, nothing = play(device, ServeFailed("digits", "nor does this"))
    assert (again, nothing) == (device, [])

    order = order_of(target(4), seq=9, policy=Policy(keep_as_fallback=True))
    device, _ = play(device, *happy(order, chosen(4)))
    assert device.fallback["digits"] == chosen(4)


def test_where_going_back_fails_the_fallback_serves() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, commands = play(
        device,
        *happy(order_of(target(3), seq=3), chosen(3))[:6],
        StepFailed(Reason.ACTIVATION_FAILED, "no memory"),
        RollbackFailed("no memory for that either"),
    )
    assert device.phase is Phase.ROLLBACK_FAILED
    assert commands[-2:] == [Serve((chosen(1),)), Settle(())]


@pytest.mark.parametrize(
    "trouble",
    [RollbackFailed("no memory for that"), StepFailed(Reason.INTERNAL, "a file is gone")],
    ids=["the runtime says so", "it cannot even be tried"],
)
def test_where_there_is_nothing_else_going_back_is_tried_once_more(trouble: Event) -> None:
    device, commands = play(
        committed(1),
        *happy(order_of(target(2), seq=2), chosen(2))[:6],
        StepFailed(Reason.ACTIVATION_FAILED, "no memory"),
        trouble,
    )
    assert device.phase is Phase.ROLLBACK_FAILED
    assert commands[-2:] == [Serve((chosen(1),)), Settle(())]
    same, commands = play(device, ServeFailed("digits", "still none"))
    assert (same, commands) == (device, [Settle(("digits",))])  # the model that failed is stopped


def test_a_first_model_that_cannot_be_taken_away_is_stopped_again() -> None:
    device, commands = play(
        Device(),
        *happy(order_of(target(1), seq=1), chosen(1))[:6],
        StepFailed(Reason.ACTIVATION_FAILED, "no memory"),
        StepFailed(Reason.INTERNAL, "who knows"),
    )
    assert device.phase is Phase.ROLLBACK_FAILED
    assert commands[-1] == Settle(("digits",))


def test_what_the_publishers_took_back_gives_way_to_the_version_before() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, commands = play(device, Withdrawn((target(2).bundle_sha256,), go_back=True))
    assert device.slots == {"digits": chosen(1)}
    assert device.previous == {}
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.ROLLED_BACK, Reason.REVOKED)
    assert commands == [Serve((chosen(1),)), Settle(())]


def test_what_may_not_run_and_has_nothing_before_it_stops() -> None:
    device, commands = play(committed(1), Withdrawn((target(1).bundle_sha256,), go_back=True))
    assert (device.slots, device.fallback) == ({}, {})
    assert commands == [Serve(()), Settle(("digits",))]


def test_where_the_policy_says_stop_nothing_is_gone_back_to() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, commands = play(device, Withdrawn((target(2).bundle_sha256,), go_back=False))
    assert device.slots == {}
    assert commands == [Serve(()), Settle(("digits",))]


def test_what_was_only_kept_for_a_way_back_is_parted_from_without_a_word() -> None:
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)))
    device, commands = play(device, Withdrawn((target(1).bundle_sha256,), go_back=True))
    assert (device.phase, commands) == (Phase.COMMITTED, [])
    assert (device.previous, device.fallback) == ({}, {})


@pytest.mark.parametrize("reached", range(1, 8))
def test_a_release_taken_back_while_it_waits_ends_its_install(reached: int) -> None:
    events = every_step(careful(2, seq=2), chosen(2))[:reached]
    device, _ = play(committed(1), *events, Withdrawn((target(2).bundle_sha256,), go_back=True))
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.FAILED, Reason.REVOKED)
    assert device.slots["digits"] == chosen(1)


def test_what_serves_may_be_taken_back_while_another_version_waits_for_its_window() -> None:
    events = every_step(careful(3, seq=3), chosen(3))[:5]
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2), chosen(2)), *events)
    device, commands = play(device, Withdrawn((target(2).bundle_sha256,), go_back=True))
    assert (device.phase, device.slots["digits"]) == (Phase.WAIT_WINDOW, chosen(1))
    assert commands[0] == Serve((chosen(1),))


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
