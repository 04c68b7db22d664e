"""What a device goes back to: after a failure, a loss, or a publisher's word."""

from __future__ import annotations

import pytest

from edgefleet_agent.device import Device
from edgefleet_agent.install_commands import Restore, Serve, Settle
from edgefleet_agent.install_events import (
    Booted,
    Event,
    RollbackFailed,
    RolledBack,
    ServeFailed,
    StepFailed,
    Withdrawn,
)
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.playbook import careful, chosen, committed, every_step, happy, play, target
from tests.contract.makers import order_of


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
