"""The install machine: what a device does with an order, step by step. Core: no clock, no disk.

`step(device, event) -> (device, commands)`. The table below says which event may come in which
phase and where it may lead; the diagram in docs/design/install.md is printed from it. What is not
in the table raises and changes nothing. The shell makes the returned state durable before it
performs the commands, so a power cut is an ordinary event (`Booted`).

What it keeps: `device.slots` is what was last committed, and what a start serves. New models enter
it at one place only, the step to COMMITTED; older ones return to it where what is committed cannot
serve or may not. An order is a group: all of its models swap, or none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from edgefleet_agent import recovery, transitions
from edgefleet_agent.device import Device
from edgefleet_agent.install_commands import Outcome, Reconsider
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
from edgefleet_contract.errors import EdgefleetError
from edgefleet_contract.phases import Phase


class IllegalStep(EdgefleetError):
    """An event came in a phase where the table has no place for it."""


def step(device: Device, event: Event) -> Outcome:
    """The next state, and what to do about it once it is durable.

    Raises:
        IllegalStep: the table has no such step; nothing changed.
    """
    row = TABLE.get((device.phase, type(event)))
    if row is None:
        raise IllegalStep(f"{type(event).__name__} has no place in phase {device.phase}")
    act, allowed = row
    after, commands = act(device, event)
    if after.phase not in allowed:
        raise IllegalStep(f"{device.phase} -> {after.phase} on {type(event).__name__}")
    if after.phase.is_final and after.pending is not None:
        commands = (*commands, Reconsider(after.pending))
    return after, commands


Act: TypeAlias = Callable[[Device, Event], Outcome]
_P = Phase
_QUIET: Final = tuple(phase for phase in Phase if phase is _P.IDLE or phase.is_final)
_STOPPABLE: Final = (
    *(_P.ACCEPTED, _P.DOWNLOADING, _P.VERIFIED, _P.STAGED),
    *(_P.WAIT_WINDOW, _P.SELFTEST, _P.SHADOW, _P.CANARY),
)
_CRITICAL: Final = recovery.CRITICAL
_BUSY: Final = (*_STOPPABLE, *_CRITICAL)

TABLE: Final[dict[tuple[Phase, type[Event]], tuple[Act, tuple[Phase, ...]]]] = {
    **{(phase, OrderTaken): (transitions.take, (_P.ACCEPTED,)) for phase in _QUIET},
    **{(phase, OrderTaken): (transitions.cancel, (_P.CANCELED,)) for phase in _STOPPABLE},
    **{(phase, OrderTaken): (transitions.hold, (phase,)) for phase in _CRITICAL},
    **{(phase, OrderRejected): (transitions.reject, (_P.REJECTED,)) for phase in _QUIET},
    **{(phase, OrderRejected): (transitions.reject_beside, (phase,)) for phase in _BUSY},
    (_P.ACCEPTED, Begin): (transitions.begin, (_P.DOWNLOADING, _P.COMMITTED)),
    (_P.DOWNLOADING, Downloaded): (transitions.verified, (_P.VERIFIED,)),
    (_P.DOWNLOADING, Interrupted): (transitions.broken, (_P.DOWNLOADING, _P.FAILED)),
    (_P.DOWNLOADING, Held): (transitions.held_up, (_P.DOWNLOADING, _P.FAILED)),
    (_P.DOWNLOADING, StepFailed): (transitions.fail, (_P.FAILED,)),
    (_P.VERIFIED, Staged): (transitions.staged, (_P.STAGED,)),
    (_P.VERIFIED, Interrupted): (transitions.spoilt, (_P.DOWNLOADING, _P.FAILED)),
    (_P.VERIFIED, StepFailed): (transitions.fail, (_P.FAILED,)),
    (_P.STAGED, Begin): (transitions.wait, (_P.WAIT_WINDOW, _P.SELFTEST)),
    (_P.WAIT_WINDOW, WindowOpened): (transitions.test, (_P.SELFTEST,)),
    (_P.WAIT_WINDOW, StepFailed): (transitions.fail, (_P.FAILED,)),
    (_P.SELFTEST, TrialPassed): (transitions.shadow, (_P.SHADOW, _P.CANARY, _P.ACTIVATING)),
    (_P.SELFTEST, StepFailed): (transitions.fail, (_P.FAILED,)),
    (_P.SHADOW, ShadowPassed): (transitions.canary, (_P.CANARY, _P.ACTIVATING)),
    (_P.SHADOW, StepFailed): (transitions.fail, (_P.FAILED,)),
    (_P.CANARY, CanaryPassed): (transitions.activate, (_P.ACTIVATING,)),
    (_P.CANARY, StepFailed): (transitions.fail, (_P.FAILED,)),
    (_P.ACTIVATING, Activated): (transitions.observe, (_P.PROBATION,)),
    (_P.ACTIVATING, StepFailed): (transitions.roll_back, (_P.ROLLING_BACK,)),
    (_P.PROBATION, ProbationPassed): (transitions.finish, (_P.COMMITTED,)),
    (_P.PROBATION, StepFailed): (transitions.roll_back, (_P.ROLLING_BACK,)),
    (_P.ROLLING_BACK, RolledBack): (transitions.rolled_back, (_P.ROLLED_BACK,)),
    (_P.ROLLING_BACK, RollbackFailed): (recovery.rollback_failed, (_P.ROLLBACK_FAILED,)),
    (_P.ROLLING_BACK, StepFailed): (recovery.rollback_failed, (_P.ROLLBACK_FAILED,)),
    **{(phase, TrustSeen): (transitions.see, (phase,)) for phase in Phase},
    **{(phase, Withdrawn): (recovery.withdraw, (phase, _P.ROLLED_BACK)) for phase in _QUIET},
    **{(phase, Withdrawn): (recovery.withdraw_beside, (phase, _P.FAILED)) for phase in _STOPPABLE},
    **{(phase, ServeFailed): (recovery.fall_back, (phase,)) for phase in Phase},
    **{(phase, KeptDying): (recovery.give_way, (phase, _P.ROLLED_BACK)) for phase in _QUIET},
    **{(phase, KeptDying): (recovery.give_way, (phase, _P.FAILED)) for phase in _STOPPABLE},
    **{(phase, KeptDying): (recovery.give_way, (phase, _P.ROLLING_BACK)) for phase in _CRITICAL},
    **{(phase, Booted): (recovery.boot_quiet, (phase,)) for phase in _QUIET},
    (_P.ACCEPTED, Booted): (recovery.boot_accepted, (_P.ACCEPTED,)),
    (_P.DOWNLOADING, Booted): (recovery.boot_downloading, (_P.DOWNLOADING,)),
    (_P.VERIFIED, Booted): (recovery.boot_verified, (_P.VERIFIED,)),
    (_P.STAGED, Booted): (recovery.boot_verified, (_P.VERIFIED,)),
    (_P.WAIT_WINDOW, Booted): (recovery.boot_verified, (_P.VERIFIED,)),
    (_P.SELFTEST, Booted): (recovery.boot_testing, (_P.VERIFIED, _P.FAILED)),
    (_P.SHADOW, Booted): (recovery.boot_testing, (_P.VERIFIED, _P.FAILED)),
    (_P.CANARY, Booted): (recovery.boot_testing, (_P.VERIFIED, _P.FAILED)),
    (_P.ACTIVATING, Booted): (recovery.boot_serving, (_P.ACTIVATING, _P.ROLLED_BACK)),
    (_P.PROBATION, Booted): (recovery.boot_serving, (_P.ACTIVATING, _P.ROLLED_BACK)),
    (_P.ROLLING_BACK, Booted): (recovery.boot_rolling_back, (_P.ROLLED_BACK,)),
}


def diagram(*, without: tuple[type[Event], ...] = ()) -> str:
    """The table as a Mermaid state diagram, an arrow for each pair of phases.

    Events of `without` are left out: those that may come in every phase.
    """
    words: dict[tuple[Phase, Phase], list[str]] = {}
    for (before, event), (_, afters) in TABLE.items():
        for after in afters:
            if before is not after and event not in without:
                words.setdefault((before, after), []).append(event.__name__)
    arrows = [
        f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in words.items()
    ]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {Phase.IDLE}", *arrows]) + "\n"
