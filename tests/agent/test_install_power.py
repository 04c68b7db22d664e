"""The install machine when the power goes, at any step."""

from __future__ import annotations

import pytest

from edgefleet_agent import transitions
from edgefleet_agent.install_commands import Reconsider, Serve
from edgefleet_agent.install_events import (
    Activated,
    Begin,
    Booted,
    CanaryPassed,
    Downloaded,
    OrderTaken,
    ProbationPassed,
    ShadowPassed,
    Staged,
    StepFailed,
    TrialPassed,
    WindowOpened,
)
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.playbook import careful, chosen, committed, every_step, happy, play, target
from tests.contract.makers import order_of


def test_an_order_that_waits_survives_a_power_cut() -> None:
    newer = order_of(target(3), seq=3)
    device, _ = play(committed(1), *happy(order_of(target(2), seq=2))[:2], OrderTaken(newer))
    device, commands = play(device, Booted())
    assert commands[-1] == Reconsider(newer)


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
