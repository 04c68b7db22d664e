"""What a rollout waits for, in words, and what its model gates read so far. No I/O, no clock.

An operator who looks at a rollout that does not move finds here why, and what would move it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from edgefleet_fleet import model_gates
from edgefleet_fleet.model_gates import Kind
from edgefleet_fleet.rollout import Rollout
from edgefleet_fleet.rollout_plan import ANYBODY
from edgefleet_fleet.rollout_states import State, WaveState
from edgefleet_fleet.roster import Outcome
from edgefleet_fleet.rounds import counts, unseen


@dataclass(frozen=True, slots=True)
class GateView:
    """What one model gate reads on one hardware class.

    Attributes:
        limit: as in `ModelGate`; `figure` is what it is held against, `sample` of how many.
        needed: the least sample, of what is `counted`.
        is_required: whether a wave waits for the sample.
        certainty: how far the evidence is on its way to a stop, 0 to 1; above 0 only where the
            figure is beyond the limit.
    """

    kind: Kind
    hardware: str
    limit: float
    figure: float
    sample: int
    needed: int
    counted: str
    is_required: bool
    certainty: float


def waits_for(rollout: Rollout, *, now: int) -> tuple[str, ...]:
    """What it waits for; empty where it is over. `now` in seconds since 1970."""
    plan = rollout.plan
    match rollout.state:
        case State.DRAFT:
            return ("a person, who starts it",)
        case State.PENDING_APPROVAL:
            who = "a second person" if plan.approve_by == ANYBODY else plan.approve_by
            return (f"the approval of {who}",)
        case State.SCHEDULED:
            return (f"its time, {_stamp(plan.start_at)}",)
        case State.PAUSED:
            return ("a person, who resumes or aborts it",)
        case State.ABORTING:
            back = rollout.tally.by_outcome()[Outcome.REVERTING]
            return (f"{_devices(back)} on the way back",)
        case State.RUNNING:
            return tuple(_running(rollout, now))
        case _:
            return ()


def gate_views(rollout: Rollout) -> tuple[GateView, ...]:
    """The model gates, each on each hardware class that was heard; a gate that no class has told
    anything for stands there with the class "" and an empty sample."""
    plan = rollout.plan
    devices = counts(rollout).good
    heard = sorted(rollout.evidence.items()) or [("", model_gates.NO_EVIDENCE)]
    enough = math.log(model_gates.e_value_needed(plan.model_gates, rollout.evidence))
    found = []
    for gate in plan.model_gates:
        for hardware, evidence in heard:
            seen = model_gates.read(gate, evidence, plan.reference)
            certainty = min(1.0, max(0.0, seen.log_e / enough)) if seen.beyond else 0.0
            found.append(
                GateView(
                    kind=gate.kind,
                    hardware=hardware,
                    limit=gate.limit,
                    figure=seen.figure,
                    sample=seen.sample,
                    needed=model_gates.needed(gate, devices),
                    counted=model_gates.COUNTED[gate.kind],
                    is_required=gate.required,
                    certainty=certainty,
                )
            )
    return tuple(found)


def _running(rollout: Rollout, now: int) -> Iterator[str]:
    plan = rollout.plan
    match rollout.wave_state:
        case WaveState.PASSED:
            if not plan.is_last(rollout.wave):
                yield f"a person, who opens wave {rollout.wave + 2} of {plan.wave_count}"
        case WaveState.SOAK:
            if now < rollout.soak_until:
                yield f"the soak, until {_stamp(rollout.soak_until)}"
            yield from unseen(rollout)
        case _:
            here = counts(rollout)
            if here.at_work:
                yield f"{_devices(here.at_work)} at work"
            if here.unheard:
                yield f"an answer of {_devices(here.unheard)}"
            if here.retrying:
                yield f"another try of {_devices(here.retrying)}, from {_stamp(rollout.retry_at)}"
            if here.unasked:
                yield f"the pace: {_devices(here.unasked)} to ask"
            if not here.total:
                yield "a device that joins"


def _devices(count: int) -> str:
    return f"{count:,} device" + ("" if count == 1 else "s")


def _stamp(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
