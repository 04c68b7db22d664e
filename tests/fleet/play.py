"""A rollout played by hand: the machine on a roster in memory, what it ordered, and the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgefleet_fleet import rollout as machine
from edgefleet_fleet import rollout_events as r
from edgefleet_fleet.cohort import Wave
from edgefleet_fleet.device_moves import MOVES
from edgefleet_fleet.model_gates import Evidence
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import Cause, NotInTable, State, WaveState
from edgefleet_fleet.roster import Member, MemoryRoster, Outcome, Tally
from edgefleet_fleet.rounds import drive

PI = "Raspberry Pi 5"
ALL = Plan("salt")
CANARY = Plan("salt", canaries=("d0",))
HALVES = Plan("salt", waves=(Wave(50), Wave(100)))


def many(count: int, kind: str = PI) -> dict[str, str]:
    """Devices of one hardware class."""
    return {f"d{number}": kind for number in range(count)}


class Watched(MemoryRoster):
    """A roster that tells from where to where devices came."""

    def __init__(self) -> None:
        super().__init__()
        self.moves: set[tuple[Outcome, Outcome]] = set()

    def write(self, changes: Mapping[str, Member]) -> None:
        for device, member in changes.items():
            old = self.get(device)
            if old is not None and old.outcome is not member.outcome:
                self.moves.add((old.outcome, member.outcome))
        super().write(changes)


@dataclass
class Play:
    """One rollout; `asked` and `withdrawn` are the orders in the order they were given."""

    plan: Plan
    devices: Mapping[str, str] = field(default_factory=dict)
    now: int = 1000
    before: tuple[str, ...] = ()
    rollout: machine.Rollout = field(init=False)
    roster: Watched = field(default_factory=Watched)
    commands: list[r.Command] = field(default_factory=list)
    all_moves: set[tuple[Outcome, Outcome]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rollout = machine.Rollout(self.plan)

    def say(self, event: r.Event, *, after: int = 0) -> tuple[r.Command, ...]:
        """Let something happen; what was ordered. The laws of tallies and moves are checked."""
        self.now += after
        before = self.rollout, dict(self.roster.members)
        try:
            self.rollout, commands = drive(
                *(self.rollout, self.roster, event),
                now=self.now,
                enlist=lambda: r.Enlisted(dict(self.devices), self.before),
            )
        except (NotInTable, machine.NotAllowed):
            assert (self.rollout, self.roster.members) == before
            raise
        self.commands += commands
        for old, new in self.roster.moves:
            if isinstance(event, r.Left) and new is Outcome.BLOCKED:
                continue
            assert new in MOVES[old]
            self.all_moves.add((old, new))
        self.roster.moves.clear()
        counted = Tally().moved((None, member) for member in self.roster.members.values())
        assert counted == self.rollout.tally
        return commands

    def begin(self) -> tuple[r.Command, ...]:
        return self.say(r.Submitted())

    def good(self, *devices: str) -> None:
        for device in devices:
            self.say(r.Ended(device, Outcome.GOOD))

    def bad(self, *devices: str, selftest: bool = False) -> None:
        for device in devices:
            self.say(r.Ended(device, Outcome.BAD, failed_selftest=selftest))

    def tick(self, after: int) -> tuple[r.Command, ...]:
        return self.say(r.Tick(), after=after)

    def tell(self, more: Evidence, kind: str = PI) -> None:
        self.say(r.Observed(kind, more))

    @property
    def asked(self) -> list[str]:
        return [command.device for command in self.commands if isinstance(command, r.Ask)]

    @property
    def withdrawn(self) -> list[str]:
        return [command.device for command in self.commands if isinstance(command, r.Withdraw)]

    @property
    def state(self) -> State:
        return self.rollout.state

    @property
    def is_running(self) -> bool:
        return self.rollout.state is State.RUNNING

    @property
    def stopped_by(self) -> Cause | None:
        return self.rollout.cause if self.state is State.PAUSED else None

    @property
    def waves(self) -> list[WaveState]:
        return list(self.rollout.wave_states())

    def outcome(self, device: str) -> Outcome:
        return self.member(device).outcome

    def member(self, device: str) -> Member:
        found = self.roster.get(device)
        assert found is not None
        return found

    def answering(self, *devices: str) -> None:
        """They run the model, and have not ended."""
        for device in devices:
            self.say(r.Answered(device, Outcome.ACTIVE))


def with_gate(plan: Plan, **more: object) -> Plan:
    """The plan with another gate."""
    return replace(plan, gate=replace(plan.gate, **more))  # type: ignore[arg-type]


def begun(plan: Plan, count: int = 2, **more: object) -> Play:
    """A rollout of the plan to so many devices of one hardware class, under way."""
    play = Play(plan, many(count), **more)  # type: ignore[arg-type]
    play.begin()
    return play
