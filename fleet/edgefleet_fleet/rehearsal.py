"""A dry run: who would get it, in which wave, and when at the earliest. No I/O, no clock.

The machine itself runs, with devices that all answer, install in `INSTALL_S` and are good; manual
gates and approvals are taken to be given at once. So the times are the earliest that the plan
allows, and nothing in reality is sooner.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edgefleet_fleet.rollout import Rollout
from edgefleet_fleet.rollout_events import (
    Answered,
    Ask,
    Ended,
    Enlisted,
    Event,
    Submitted,
    Tick,
)
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.roster import MemoryRoster, Outcome
from edgefleet_fleet.rounds import drive, wake_at

INSTALL_S: Final = 60
_STEPS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Visit:
    """A device that would get it: its wave (from 0), and when it is asked at the earliest."""

    device: str
    kind: str
    wave: int
    at: int | None


def rehearse(
    plan: Plan, devices: Mapping[str, str], blocked: tuple[str, ...] = (), *, now: int
) -> tuple[Visit, ...]:
    """When each device would be asked, in that order; `at` is None for those that would not be.

    Args:
        plan: as it would be carried out.
        devices: the hardware class of each device that is meant.
        blocked: classes on which the bundle failed before.
        now: seconds since 1970.
    """
    ideal = replace(plan, model_gates=(), hold_after=(), approve_by="", expires_at=0)
    rollout, roster = Rollout(ideal), MemoryRoster()
    roster.heard = dict.fromkeys(devices, 2**62)  # none of them goes silent
    asked: dict[str, int] = {}
    heap: list[tuple[int, int, Event]] = [(now, 0, Submitted())]
    for number in range(1, _STEPS):
        if not heap or rollout.state in (State.COMPLETED, State.PAUSED):
            break
        at, _, event = heapq.heappop(heap)
        rollout, commands = drive(
            *(rollout, roster, event), now=at, enlist=lambda: Enlisted(devices, blocked)
        )
        for command in commands:
            if isinstance(command, Ask):
                asked[command.device] = at
                ended = Ended(command.device, Outcome.GOOD)
                heapq.heappush(heap, (at + 1, -number, Answered(command.device, Outcome.STARTED)))
                heapq.heappush(heap, (at + INSTALL_S, number, ended))
        due = wake_at(rollout, at)
        is_tick_needed = due and (not heap or heap[0][0] > due)
        if is_tick_needed and rollout.state is not State.COMPLETED:
            heapq.heappush(heap, (max(due, at + 1), number, Tick()))
    return tuple(
        sorted(
            (
                Visit(device, member.kind, member.wave, asked.get(device))
                for device, member in roster.members.items()
            ),
            key=lambda visit: (visit.at is None, visit.at or 0, visit.wave, visit.device),
        )
    )
