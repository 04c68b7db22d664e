"""The install machine where a candidate waits for a window, or stands beside what serves."""

from __future__ import annotations

from edgefleet_agent.device import Device
from edgefleet_agent.install_commands import (
    Activate,
    AwaitWindow,
    RunCanary,
    RunShadow,
    SelfTest,
    Settle,
)
from edgefleet_agent.install_events import OrderTaken, StepFailed, TrialPassed
from edgefleet_contract.order_policy import Canary, Policy, Shadow
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.playbook import careful, chosen, committed, every_step, happy, play, target
from tests.contract.makers import order_of


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
