"""The devices of a rollout: how far each is, how many stand where, and who is next. No I/O.

The machine (`rollout.py`) never holds all devices: it keeps a `Tally` of them, and asks a `Roster`
for the few that a decision concerns. So a report costs the same in a fleet of ten and of a hundred
thousand. The store is a roster; `MemoryRoster` is one for rehearsals and simulations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from edgefleet_contract.phases import Phase


class Outcome(StrEnum):
    """How far one device came with one rollout."""

    PENDING = "pending"
    HELD = "held"
    ASKED = "asked"
    STARTED = "started"
    ACTIVE = "active"
    SILENT = "silent"
    RETRYING = "retrying"
    GOOD = "good"
    BAD = "bad"
    UNDELIVERED = "undelivered"
    REFUSED = "refused"
    BLOCKED = "blocked"
    WITHDRAWN = "withdrawn"
    REVERTING = "reverting"
    REVERTED = "reverted"

    @property
    def is_open(self) -> bool:
        """Whether an order stands that the device has not ended."""
        return self in OPEN

    @property
    def is_in_force(self) -> bool:
        """Whether the device should run the target: it is asked to, or does."""
        return self in OPEN or self is Outcome.GOOD


AT_IT: Final = (Outcome.ASKED, Outcome.STARTED, Outcome.ACTIVE)
OPEN: Final = (*AT_IT, Outcome.SILENT)
FAILED: Final = (Outcome.BAD, Outcome.SILENT)
NONE: Final[Mapping[Outcome, int]] = MappingProxyType(dict.fromkeys(Outcome, 0))
UNDONE: Final = (Outcome.UNDELIVERED, Outcome.REFUSED)
_RUNS_THE_MODEL: Final = frozenset(
    {Phase.SELFTEST, Phase.SHADOW, Phase.CANARY, Phase.ACTIVATING, Phase.PROBATION}
    | {Phase.ROLLING_BACK}
)


def step_of(phase: Phase) -> Outcome | None:
    """Where a phase that is no end puts a device; None where it says nothing.

    From its self-test on a device runs the model, so from then on silence counts.
    """
    if phase is Phase.IDLE or phase.is_final:
        return None
    return Outcome.ACTIVE if phase in _RUNS_THE_MODEL else Outcome.STARTED


@dataclass(frozen=True, slots=True)
class Member:
    """A device of a rollout. `place` orders the devices of a wave; `kind` is its hardware class.

    `asked_at` and `heard_at` are seconds since 1970, 0 where it was not. So many `tries` to fetch
    it failed; one that is RETRYING is asked again at `retry_at`.
    """

    wave: int
    place: int = 0
    kind: str = ""
    outcome: Outcome = Outcome.PENDING
    asked_at: int = 0
    heard_at: int = 0
    failed_selftest: bool = False
    tries: int = 0
    retry_at: int = 0


Cell: TypeAlias = tuple[int, Outcome, str]
"""A wave, an outcome and a hardware class."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many devices stand where.

    Laws: a tally is what counting all members gives; `Tally.of_words(t.words()) == t`.
    """

    cells: Mapping[Cell, int] = field(default_factory=dict)

    def moved(self, pairs: Iterable[tuple[Member | None, Member | None]]) -> Tally:
        """The tally after members became others; None is a member that was not, or is no more."""
        cells = dict(self.cells)
        for old, new in pairs:
            if old is not None:
                cells[_cell(old)] -= 1
                if not cells[_cell(old)]:
                    del cells[_cell(old)]
            if new is not None:
                cells[_cell(new)] = cells.get(_cell(new), 0) + 1
        return Tally(cells)

    def by_outcome(self, waves: range | None = None) -> dict[Outcome, int]:
        """How many have each outcome, in these waves."""
        found = dict(NONE)
        for (wave, outcome, _), count in self.cells.items():
            if waves is None or wave in waves:
                found[outcome] += count
        return found

    def by_kind(self, waves: range) -> dict[str, dict[Outcome, int]]:
        """The same for each hardware class that there is."""
        found: dict[str, dict[Outcome, int]] = {}
        for (wave, outcome, kind), count in self.cells.items():
            if wave in waves:
                if kind not in found:
                    found[kind] = dict(NONE)
                found[kind][outcome] += count
        return found

    def words(self) -> dict[str, int]:
        """The cells as a JSON object has them: `wave|outcome|class`."""
        return {f"{wave}|{outcome}|{kind}": n for (wave, outcome, kind), n in self.cells.items()}

    @staticmethod
    def of_words(words: Mapping[str, int]) -> Tally:
        """The tally in such an object."""
        cells: dict[Cell, int] = {}
        for word, count in words.items():
            wave, outcome, kind = word.split("|", 2)
            cells[int(wave), Outcome(outcome), kind] = count
        return Tally(cells)


NOBODY: Final = Tally()


def _cell(member: Member) -> Cell:
    return member.wave, member.outcome, member.kind


class Roster(Protocol):
    """The devices of one rollout, for the machine to look up."""

    def get(self, device: str) -> Member | None:
        """One device."""
        ...

    def pending(self, wave: int, limit: int) -> tuple[str, ...]:
        """The next devices that may be asked: PENDING, by wave up to `wave`, then by place."""
        ...

    def having(self, outcomes: Iterable[Outcome], *, kind: str | None = None) -> tuple[str, ...]:
        """The devices with one of these outcomes, of a class if one is named."""
        ...

    def asked_since(self, moment: int) -> int:
        """How many devices are ASKED, since `moment` or later."""
        ...

    def silent(self, before: int, *, committed: bool) -> tuple[str, ...]:
        """The ACTIVE devices not heard of since `before`; with `committed` the GOOD ones too."""
        ...

    def retrying(self, limit: int) -> tuple[tuple[str, int], ...]:
        """The RETRYING devices and when each is asked again, the first ones first."""
        ...

    def write(self, changes: Mapping[str, Member]) -> None:
        """Keep new and changed devices."""
        ...


class MemoryRoster:
    """A roster in memory, indexed so that ten thousand devices are no burden.

    `heard` has signs of life that are no event of the rollout: seconds by device.
    """

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.heard: dict[str, int] = {}
        self._by_outcome: dict[Outcome, dict[str, None]] = {outcome: {} for outcome in Outcome}
        self._queue: list[str] | None = None

    def get(self, device: str) -> Member | None:
        """See `Roster`."""
        return self.members.get(device)

    def pending(self, wave: int, limit: int) -> tuple[str, ...]:
        """See `Roster`."""
        if self._queue is None:
            waiting = self._by_outcome[Outcome.PENDING]
            self._queue = sorted(waiting, key=lambda d: (*self._order(d), d), reverse=True)
        found: list[str] = []
        while self._queue and len(found) < limit:
            device = self._queue[-1]
            if self.members[device].outcome is not Outcome.PENDING:
                self._queue.pop()
                continue
            if self.members[device].wave > wave:
                break
            found.append(self._queue.pop())
        self._queue.extend(reversed(found))  # only `write` takes them off
        return tuple(found)

    def _order(self, device: str) -> tuple[int, int]:
        member = self.members[device]
        return member.wave, member.place

    def having(self, outcomes: Iterable[Outcome], *, kind: str | None = None) -> tuple[str, ...]:
        """See `Roster`."""
        found = (device for outcome in outcomes for device in self._by_outcome[outcome])
        return tuple(sorted(d for d in found if kind is None or self.members[d].kind == kind))

    def asked_since(self, moment: int) -> int:
        """See `Roster`."""
        asked = self._by_outcome[Outcome.ASKED]
        return sum(self.members[device].asked_at >= moment for device in asked)

    def silent(self, before: int, *, committed: bool) -> tuple[str, ...]:
        """See `Roster`."""
        outcomes = (Outcome.ACTIVE, Outcome.GOOD) if committed else (Outcome.ACTIVE,)
        found = (device for outcome in outcomes for device in self._by_outcome[outcome])
        return tuple(sorted(d for d in found if self._heard_at(d) < before))

    def retrying(self, limit: int) -> tuple[tuple[str, int], ...]:
        """See `Roster`."""
        waiting = self._by_outcome[Outcome.RETRYING]
        found = sorted((self.members[device].retry_at, device) for device in waiting)
        return tuple((device, at) for at, device in found[:limit])

    def _heard_at(self, device: str) -> int:
        return max(self.members[device].heard_at, self.heard.get(device, 0))

    def write(self, changes: Mapping[str, Member]) -> None:
        """See `Roster`."""
        for device, member in changes.items():
            old = self.members.get(device)
            if old is not None:
                del self._by_outcome[old.outcome][device]
            self.members[device] = member
            self._by_outcome[member.outcome][device] = None
            if member.outcome is Outcome.PENDING:
                self._queue = None
