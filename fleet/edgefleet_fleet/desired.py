"""What one device should run: the fleet's level, slot by slot. No I/O.

Per slot, the newest rollout that asked the device and was not in vain decides. Where the newest
was in vain (it failed there, or was taken back), the slot falls back to what the device reports to
run, and where that is not known, to what an older rollout asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import DEFAULT_POLICY, Policy
from edgefleet_contract.orders import Target
from edgefleet_contract.reported import Reported, RunningModel
from edgefleet_fleet.roster import Outcome


@dataclass(frozen=True, slots=True)
class SlotAsk:
    """What one rollout asked of the device."""

    rollout: str
    target: Target
    outcome: Outcome
    allow_downgrade: bool = False
    policy: Policy = DEFAULT_POLICY


@dataclass(frozen=True, slots=True)
class Level:
    """The content of the next order; `asks` are the rollouts whose end it will bring."""

    targets: tuple[Target, ...]
    rollout: str = ""
    asks: tuple[str, ...] = ()
    allow_downgrade: bool = False
    policy: Policy = DEFAULT_POLICY


def level(
    history: Sequence[SlotAsk],
    running: Sequence[RunningModel],
    known: Mapping[Digest, Target],
) -> Level:
    """What the device should run.

    Args:
        history: what rollouts asked of it, oldest first.
        running: what it reports to run.
        known: the fleet's targets by bundle, to turn what runs into an order.
    """
    slots = dict.fromkeys(model.slot for model in running)
    slots |= dict.fromkeys(ask.target.slot for ask in history)
    by_slot = {model.slot: model for model in running}
    chosen: list[Target] = []
    deciding: list[SlotAsk] = []
    fell_back = False
    for slot in sorted(slots):
        asks = [ask for ask in reversed(history) if ask.target.slot == slot]
        target, ask, vain = _choose(asks, by_slot.get(slot), known)
        fell_back = fell_back or vain
        if target is not None:
            chosen.append(target)
        if ask is not None and ask.outcome.is_open:
            deciding.append(ask)
    newest = max(deciding, key=history.index, default=None)
    return Level(
        targets=tuple(chosen),
        rollout=newest.rollout if newest else "",
        asks=tuple(sorted(ask.rollout for ask in deciding)),
        # Going back to what ran before is what a fallback means.
        allow_downgrade=fell_back or any(ask.allow_downgrade for ask in deciding),
        policy=newest.policy if newest else DEFAULT_POLICY,
    )


def without_sealed(history: Sequence[SlotAsk]) -> tuple[SlotAsk, ...]:
    """The history for a device that can open nothing: what was asked of it sealed was in vain."""
    return tuple(
        replace(ask, outcome=Outcome.BAD) if ask.target.sealed is not None else ask
        for ask in history
    )


def runs(reported: Reported, target: Target) -> bool:
    """Whether a device reports that the target serves in its slot."""
    return any(
        model.slot == target.slot and model.bundle_sha256 == target.bundle_sha256
        for model in reported.models
    )


def _choose(
    asks: list[SlotAsk], running: RunningModel | None, known: Mapping[Digest, Target]
) -> tuple[Target | None, SlotAsk | None, bool]:
    vain: set[Digest] = set()
    for ask in asks:
        if ask.outcome.is_in_force:
            return ask.target, ask, bool(vain)
        vain.add(ask.target.bundle_sha256)
        if running is not None and running.bundle_sha256 in known.keys() - vain:
            break
    found = known.get(running.bundle_sha256) if running is not None else None
    if running is None or found is None or found.bundle_sha256 in vain:
        return None, None, bool(vain)
    return replace(found, slot=running.slot), None, bool(vain)
