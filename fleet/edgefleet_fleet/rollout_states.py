"""Where a rollout and its waves may stand, and what moves them: two tables. No I/O, no clock.

What is not in a table raises and changes nothing; the diagrams in docs/design/rollout.md are
printed from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a rollout stands."""

    DRAFT = "draft"
    PENDING_APPROVAL = "pending_approval"
    DENIED = "denied"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTING = "aborting"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"

    @property
    def is_over(self) -> bool:
        """Whether it asks and decides nothing any more."""
        return self in _OVER

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun: nobody was asked yet."""
        return self in (State.DRAFT, State.PENDING_APPROVAL, State.SCHEDULED)

    @property
    def sets_level(self) -> bool:
        """Whether devices that join are taken in."""
        return self in (State.RUNNING, State.PAUSED, State.COMPLETED)


_OVER: Final = frozenset(
    {State.DENIED, State.COMPLETED, State.ABORTED, State.SUPERSEDED, State.EXPIRED}
)


class Cause(StrEnum):
    """Why a rollout stopped."""

    GATE = "gate"
    OPERATOR = "operator"
    BUDGET = "budget"
    STALL = "stall"


class Ending(StrEnum):
    """What becomes of devices that have the new version when a rollout is aborted."""

    KEEP = "keep"
    REVERT = "revert"


class Trigger(StrEnum):
    """What moves a rollout from one state to another."""

    SUBMITTED = "submitted"
    APPROVAL_NEEDED = "submitted, a second person must approve"
    APPROVED = "approved"
    DENIED = "denied"
    DUE = "its time came"
    GATE_TRIPPED = "gate tripped"
    GATE_ABORTED = "gate tripped, which aborts"
    BUDGET_SPENT = "budget spent"
    STALLED = "too few answer"
    LAST_WAVE_PASSED = "last wave passed"
    OPERATOR_PAUSED = "operator paused"
    OPERATOR_RESUMED = "operator resumed"
    OPERATOR_ABORTED = "operator aborted"
    OPERATOR_REVERTED = "operator reverted"
    ALL_BACK = "nobody is on the way back"
    REPLACED = "replaced by a newer rollout"
    EXPIRED = "its time ran out"


_BEFORE: Final = (State.DRAFT, State.PENDING_APPROVAL, State.SCHEDULED)
_BEGUN: Final = (State.RUNNING, State.PAUSED, State.COMPLETED)
_ACTIVE: Final = (*_BEFORE, State.RUNNING, State.PAUSED)

TRANSITIONS: Final[Mapping[tuple[State, Trigger], State]] = {
    (State.DRAFT, Trigger.SUBMITTED): State.SCHEDULED,
    (State.DRAFT, Trigger.APPROVAL_NEEDED): State.PENDING_APPROVAL,
    (State.PENDING_APPROVAL, Trigger.APPROVED): State.SCHEDULED,
    (State.PENDING_APPROVAL, Trigger.DENIED): State.DENIED,
    (State.SCHEDULED, Trigger.DUE): State.RUNNING,
    (State.RUNNING, Trigger.GATE_TRIPPED): State.PAUSED,
    (State.RUNNING, Trigger.BUDGET_SPENT): State.PAUSED,
    (State.RUNNING, Trigger.STALLED): State.PAUSED,
    (State.RUNNING, Trigger.OPERATOR_PAUSED): State.PAUSED,
    (State.RUNNING, Trigger.LAST_WAVE_PASSED): State.COMPLETED,
    (State.RUNNING, Trigger.GATE_ABORTED): State.ABORTING,
    (State.PAUSED, Trigger.OPERATOR_RESUMED): State.RUNNING,
    **{(state, Trigger.OPERATOR_ABORTED): State.ABORTING for state in _ACTIVE},
    **{(state, Trigger.OPERATOR_REVERTED): State.ABORTING for state in _BEGUN},
    (State.ABORTING, Trigger.OPERATOR_ABORTED): State.ABORTED,
    (State.ABORTING, Trigger.ALL_BACK): State.ABORTED,
    **{(state, Trigger.REPLACED): State.SUPERSEDED for state in _ACTIVE},
    **{(state, Trigger.EXPIRED): State.EXPIRED for state in _ACTIVE},
}


class WaveState(StrEnum):
    """Where one wave stands."""

    PENDING = "pending"
    OPEN = "open"
    SOAK = "soak"
    PASSED = "passed"
    FAILED = "failed"


class WaveTrigger(StrEnum):
    """What moves a wave."""

    OPENED = "opened"
    ENDED_WELL = "enough ended well"
    UNSETTLED = "not enough any more"
    SOAKED = "soaked, and the model gates hold"
    PROMOTED = "operator went on"
    TRIPPED = "gate tripped"
    RESUMED = "operator resumed"


WAVE_TRANSITIONS: Final[Mapping[tuple[WaveState, WaveTrigger], WaveState]] = {
    (WaveState.PENDING, WaveTrigger.OPENED): WaveState.OPEN,
    (WaveState.OPEN, WaveTrigger.ENDED_WELL): WaveState.SOAK,
    (WaveState.SOAK, WaveTrigger.UNSETTLED): WaveState.OPEN,
    (WaveState.SOAK, WaveTrigger.SOAKED): WaveState.PASSED,
    (WaveState.SOAK, WaveTrigger.PROMOTED): WaveState.PASSED,
    (WaveState.OPEN, WaveTrigger.TRIPPED): WaveState.FAILED,
    (WaveState.SOAK, WaveTrigger.TRIPPED): WaveState.FAILED,
    (WaveState.FAILED, WaveTrigger.RESUMED): WaveState.OPEN,
}


class NotInTable(Exception):
    """This cannot happen to a rollout in this state."""

    def __init__(self, state: State, trigger: str) -> None:
        super().__init__(f"{trigger} is not possible while {state.value}")
        self.state = state
        self.trigger = trigger


def diagram() -> str:
    """The table of rollouts as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.DRAFT}"]
    lines += [f"    {old} --> {new}: {trigger}" for (old, trigger), new in TRANSITIONS.items()]
    left = {old for old, _ in TRANSITIONS}
    lines += [f"    {state} --> [*]" for state in State if state not in left]
    return "\n".join(lines)


def wave_diagram() -> str:
    """The table of waves as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {WaveState.PENDING}"]
    lines += [f"    {old} --> {new}: {why}" for (old, why), new in WAVE_TRANSITIONS.items()]
    lines += [f"    {WaveState.PASSED} --> [*]"]
    return "\n".join(lines)
