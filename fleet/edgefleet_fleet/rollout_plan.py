"""What was decided before a rollout began, as one frozen document. No I/O, no clock.

It is kept as JSON and read back strictly: a plan with a field that this release does not know is
refused, since leaving a gate out that somebody asked for would let a bad model pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.errors import Malformed
from edgefleet_fleet.cohort import EVERYBODY, Wave, check_waves, cuts, place, wave_of
from edgefleet_fleet.gates import DEFAULT_GATE, GatePolicy
from edgefleet_fleet.model_gates import (
    DEFAULT_GATES,
    NO_ENVELOPE,
    NO_REFERENCE,
    Envelope,
    ModelGate,
    Reference,
)
from edgefleet_fleet.pace import DEFAULT_PACE, Pace
from edgefleet_fleet.retries import DEFAULT_RETRIES, Retries

ANYBODY: Final = "any"


@dataclass(frozen=True, slots=True)
class Plan:
    """Who, in which order, how fast, and when to stop. Times are seconds since 1970, 0 for none.

    Attributes:
        salt: what makes the order of devices this rollout's own.
        waves: cumulative; a wave of explicit `canaries` comes before them.
        gate, model_gates: when it stops by itself.
        reference: how the previous model answers, for gates that compare.
        envelope: what a request may take, for `slow` and `memory`.
        pace: how fast the devices of an open wave are asked.
        retries: how often a device that could not fetch it is asked again.
        soak_s: how long a wave must have stood before the next opens.
        hold_after: waves (counted from 1) after which a person opens the next.
        start_at, expires_at: not before, and not after.
        author: who asked for it; `approve_by` names who must agree ("any": any second person).
        per_device: so many requests of one device count as evidence.
    """

    salt: str
    waves: tuple[Wave, ...] = EVERYBODY
    canaries: tuple[str, ...] = ()
    gate: GatePolicy = DEFAULT_GATE
    model_gates: tuple[ModelGate, ...] = DEFAULT_GATES
    reference: Reference = NO_REFERENCE
    envelope: Envelope = NO_ENVELOPE
    pace: Pace = DEFAULT_PACE
    retries: Retries = DEFAULT_RETRIES
    soak_s: int = 0
    hold_after: tuple[int, ...] = ()
    start_at: int = 0
    expires_at: int = 0
    author: str = ""
    approve_by: str = ""
    per_device: int = 500

    def __post_init__(self) -> None:
        check_waves(self.waves)
        if min(self.soak_s, self.start_at, self.expires_at) < 0 or self.per_device < 1:
            raise Malformed("plan: a negative time")
        if self.expires_at and self.expires_at <= self.start_at:
            raise Malformed("it would expire before it starts")
        if any(not 1 <= wave < self.wave_count for wave in self.hold_after):
            raise Malformed(
                f"hold-after {','.join(map(str, self.hold_after))}: there are {self.wave_count}"
                " waves, and nothing comes after the last"
            )
        if self.approve_by and self.approve_by == self.author:
            raise Malformed("it is to be approved by a second person")

    @property
    def wave_count(self) -> int:
        """How many waves there are, the canaries' one included."""
        return len(self.waves) + (1 if self.canaries else 0)

    def is_last(self, wave: int) -> bool:
        """Whether no wave comes after this one (counted from 0)."""
        return wave >= self.wave_count - 1

    def ends(self, devices: Iterable[str]) -> tuple[int, ...]:
        """Where the waves end, with these devices there."""
        others = (device for device in devices if device not in self.canaries)
        return cuts(self.waves, (place(self.salt, device) for device in others))

    def wave_of(self, device: str, ends: tuple[int, ...]) -> int:
        """The wave that a device falls into, counted from 0."""
        return wave_of(device, salt=self.salt, ends=ends, canaries=self.canaries)

    def place(self, device: str) -> int:
        """Where a device stands in its wave: 63 bits, which data bases count in."""
        return place(self.salt, device) >> 1
