"""Which commands are carried out, and that each is so once. No clock, no disk. [wire-12]

A device remembers the numbers of the commands that it took, begun before it acts. So one that
comes a second time, from the broker or from somebody who kept it, is not heard; and one during
which the agent ended is answered as interrupted, never done again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from edgefleet_contract.commands import MAX_COMMAND_LIFE_S, Command, Kind

REMEMBERED: Final = 64
"""Commands whose numbers are kept one by one; below these no number is taken any more."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A command that was taken. `answer` is the rendered result; empty while it is being done, and
    again once the broker has it (`told`)."""

    seq: int
    id: str
    kind: Kind
    answer: str = ""
    told: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it was begun and has no answer."""
        return not self.answer and not self.told


@dataclass(frozen=True, slots=True)
class CommandLog:
    """The commands of a device, by number. None at or below `floor` is taken, and none that was
    issued before `not_before`: set where the log was lost."""

    taken: tuple[Taken, ...] = ()
    floor: int = 0
    not_before: int = 0

    def knows(self, command: Command) -> bool:
        """Whether a command was taken before, or is too old to tell."""
        seen = any(item.seq == command.seq or item.id == command.id for item in self.taken)
        return seen or command.seq <= self.floor or command.issued < self.not_before

    def began(self, command: Command) -> CommandLog:
        """With a command that is about to be done."""
        taken = sorted(
            (*self.taken, Taken(command.seq, command.id, command.kind)), key=lambda item: item.seq
        )
        gone, kept = taken[:-REMEMBERED], taken[-REMEMBERED:]
        floor = max((self.floor, *(item.seq for item in gone)))
        return replace(self, taken=tuple(kept), floor=floor)

    def answered(self, seq: int, answer: str) -> CommandLog:
        """With the answer of a command."""
        return self._with(seq, answer=answer)

    def told(self, seq: int) -> CommandLog:
        """With the broker having the answer of a command, which is kept no longer."""
        return self._with(seq, answer="", told=True)

    def _with(self, seq: int, *, answer: str, told: bool = False) -> CommandLog:
        taken = (
            replace(item, answer=answer, told=told) if item.seq == seq else item
            for item in self.taken
        )
        return replace(self, taken=tuple(taken))


@dataclass(frozen=True, slots=True)
class Run:
    """Do it."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do nothing, and say why."""

    why: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """Do nothing and say nothing: it is not for this device, or was heard before."""

    why: str


Verdict: TypeAlias = Run | Refuse | Ignore


def judge(
    command: Command,
    log: CommandLog,
    *,
    fleet: str,
    name: str,
    now: int,
    allow: Collection[Kind],
    running: int,
    at_once: int,
) -> Verdict:
    """What becomes of a command that a director signed.

    Args:
        command: the command.
        log: what was taken before.
        fleet, name: who this device is.
        now: the later of the clock and every signed time, seconds since 1970.
        allow: the kinds that the owner of the device lets it do.
        running: how many are being done.
        at_once: how many may be.
    """
    if (command.fleet, command.device) != (fleet, name):
        return Ignore(f"it is for {command.device} of fleet {command.fleet}")
    if log.knows(command):
        return Ignore(f"number {command.seq} was taken before, or is older than what was")
    if command.expires - command.issued > MAX_COMMAND_LIFE_S:
        return Refuse(f"it lives longer than {MAX_COMMAND_LIFE_S} s")
    if now > command.expires:
        return Refuse(f"it ended {now - command.expires} s ago, by the clock of this device")
    if command.kind not in allow:
        return Refuse(
            f"the owner of this device does not allow {command.kind}: [commands] in agent.toml"
        )
    if running >= at_once:
        return Refuse(f"{running} commands are being done already")
    return Run()
