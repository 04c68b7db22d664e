"""The rules that are compared: ours, and those of hawkBit and AWS IoT Jobs after their documents.

The references are written down here from what their makers say, with the benefit of the doubt: they
are evaluated at every message, where the originals look every few seconds or minutes. Both come
twice: as their documents give them (defaults, examples), and as sharp as they can be set without
stopping most good models: at the limit that ours has, 5 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench._rollout_world import REFERENCE, Said, World
from edgefleet_fleet.cohort import Wave, cuts, wave_of
from edgefleet_fleet.gates import GatePolicy
from edgefleet_fleet.model_gates import Evidence, bounded, has_drifted
from edgefleet_fleet.pace import Bucket, Pace
from edgefleet_fleet.rollout import Rollout
from edgefleet_fleet.rollout_events import (
    Answered,
    Ask,
    Command,
    Ended,
    Enlisted,
    Event,
    Observed,
    Submitted,
    Tick,
)
from edgefleet_fleet.rollout_plan import Plan
from edgefleet_fleet.rollout_states import State
from edgefleet_fleet.roster import MemoryRoster, Outcome
from edgefleet_fleet.rounds import drive, wake_at

WAVES = (Wave(1), Wave(5), Wave(25), Wave(100))
CANARIES = 10
PACE = Pace(per_minute=20, factor=2.0, every=50, max_per_minute=1000)
SILENCE_S = 900
SOAK_S = 1200
_WATCHED = 200
"""Outputs of a device before its drift is judged."""
_ENDS = {"good": Outcome.GOOD, "bad": Outcome.BAD, "undelivered": Outcome.UNDELIVERED}


@dataclass
class Ours:
    """The engine, with its default gate."""

    world: World
    recalls: str = "active"
    listens: bool = True
    rollout: Rollout = field(init=False)
    roster: MemoryRoster = field(default_factory=MemoryRoster)
    told: dict[str, Evidence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = Plan(
            f"salt-{self.world.seed}",
            waves=WAVES,
            canaries=self.world.canaries(CANARIES),
            gate=GatePolicy(min_sample=1, silence_s=SILENCE_S),
            reference=REFERENCE,
            pace=PACE,
            soak_s=SOAK_S,
        )
        self.rollout = Rollout(plan)

    def _say(self, event: Event, now: int) -> list[str]:
        commands: tuple[Command, ...]
        self.rollout, commands = drive(
            *(self.rollout, self.roster, event),
            now=now,
            enlist=lambda: Enlisted(self.world.kinds),
        )
        return [command.device for command in commands if isinstance(command, Ask)]

    def begin(self, now: int) -> list[str]:
        """See `Rule`."""
        return self._say(Submitted(), now)

    def hear(self, device: str, said: Said, now: int) -> list[str]:
        """See `Rule`."""
        self.roster.heard[device] = now + _alive_for(said)
        match said.what:
            case "answered":
                return self._say(Answered(device, Outcome.STARTED), now)
            case "active":
                return self._say(Answered(device, Outcome.ACTIVE), now)
            case "told":
                assert said.told is not None
                return self._say(self._observed(device, said.told), now)
            case what:
                is_bad = what == "bad"
                return self._say(Ended(device, _ENDS[what], failed_selftest=is_bad), now)

    def _observed(self, device: str, told: Evidence) -> Observed:
        watched = int(sum(told.outputs) >= _WATCHED)
        drifted = int(bool(watched) and has_drifted(told.outputs, REFERENCE))
        whole = bounded(told + Evidence(watched=watched, drifted=drifted), 500)
        more = whole - self.told.get(device, Evidence())
        self.told[device] = whole
        return Observed(self.world.kinds[device], more)

    def wake(self, now: int) -> list[str]:
        """See `Rule`."""
        return self._say(Tick(), now)

    def wake_at(self, now: int) -> int:
        """See `Rule`."""
        return wake_at(self.rollout, now)

    @property
    def is_stopped(self) -> bool:
        """See `Rule`. A class that is blocked is a stop for those that it means."""
        return self.rollout.state is State.PAUSED

    @property
    def is_done(self) -> bool:
        """See `Rule`."""
        return self.rollout.state is State.COMPLETED


def _alive_for(said: Said) -> int:
    """A board that serves keeps talking, though this world writes down only some of it."""
    return 10**9 if said.what in ("good", "told") else 0


@dataclass
class HawkBit:
    """Eclipse hawkBit's rollout groups.

    https://eclipse.dev/hawkbit/concepts/rollout-management: groups start one after the other. All
    targets of a group are asked at once. "Success Condition: defined by the percentage of
    successfully installed targets in the current group", which starts the next group; "Error
    Condition: defined by an absolute number or percentage of failed installations. This triggers an
    emergency shutdown of the entire rollout". Both are shares of the whole group
    (ThresholdRolloutGroupSuccessCondition: finished/total >= threshold;
    ThresholdRolloutGroupErrorCondition: errors/total > threshold); the defaults are 50 % and 50 %
    (RolloutGroupConditionBuilder.withDefaults). There is no timeout for a target that says nothing.
    """

    world: World
    success: float = 0.5
    error: float = 0.5
    canary_error: float = 0.5
    recalls: str = ""
    listens: bool = False
    group: int = 0
    groups: list[list[str]] = field(default_factory=list)
    of: dict[str, int] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    is_stopped: bool = False
    is_done: bool = False

    def begin(self, now: int) -> list[str]:
        """See `Rule`."""
        del now
        canaries = self.world.canaries(CANARIES)
        ends = cuts(WAVES, ())
        self.groups = [[] for _ in range(len(WAVES) + 1)]
        for device in self.world.kinds:
            salt = f"salt-{self.world.seed}"
            self.of[device] = wave_of(device, salt=salt, ends=ends, canaries=canaries)
            self.groups[self.of[device]].append(device)
        self.finished = [0] * len(self.groups)
        self.errors = [0] * len(self.groups)
        return self.groups[0]

    def hear(self, device: str, said: Said, now: int) -> list[str]:
        """See `Rule`."""
        del now
        group = self.of[device]
        total = len(self.groups[group])
        self.finished[group] += said.what == "good"
        self.errors[group] += said.what in ("bad", "undelivered")
        if self.errors[group] / total > (self.error if group else self.canary_error):
            self.is_stopped = True
            return []
        newest = self.groups[self.group]
        if self.finished[self.group] / len(newest) < self.success:
            return []
        if self.group == len(self.groups) - 1:
            self.is_done = True
            return []
        self.group += 1
        return self.groups[self.group]

    def wake(self, now: int) -> list[str]:
        """See `Rule`."""
        del now
        return []

    def wake_at(self, now: int) -> int:
        """See `Rule`."""
        del now
        return 0


@dataclass
class AwsJobs:
    """AWS IoT Jobs: an exponential rollout rate with abort criteria and a timeout.

    https://docs.aws.amazon.com/iot/latest/developerguide/jobs-configurations-details.html: the
    rate begins at `baseRatePerMinute` and is multiplied by `incrementFactor` each time that
    `numberOfSucceededThings` more succeeded, up to `maximumPerMinute`. "If at least 20 % of the
    completed executions failed after 100 executions have completed, it cancels the job rollout. If
    this criteria isn't met, AWS IoT then checks if at least 50 % of the completed executions timed
    out after 200 executions have completed." An execution that is in progress for longer than
    `inProgressTimeoutInMinutes` is TIMED_OUT, which completes it. CANCEL takes back what is queued.
    There are no groups; canaries would be a job of their own.
    """

    world: World
    failed: tuple[int, float] = (100, 0.2)
    timed_out: tuple[int, float] = (200, 0.5)
    recalls: str = "answered"
    listens: bool = False
    queue: list[str] = field(default_factory=list)
    bucket: Bucket = field(default_factory=Bucket)
    counts: dict[str, int] = field(default_factory=lambda: {"good": 0, "failed": 0, "late": 0})
    running: dict[str, int] = field(default_factory=dict)
    is_stopped: bool = False
    _quiet: int = 0

    def begin(self, now: int) -> list[str]:
        """See `Rule`."""
        import hashlib

        def order(device: str) -> str:
            return hashlib.sha256(f"aws-{self.world.seed}-{device}".encode()).hexdigest()

        self.queue = sorted(self.world.kinds, key=order, reverse=True)
        return self._release(now)

    def _release(self, now: int) -> list[str]:
        rate = PACE.rate(self.counts["good"])
        self.bucket = self.bucket.filled(rate, now)
        count = min(self.bucket.whole, len(self.queue))
        self.bucket = self.bucket.take(count)
        return [self.queue.pop() for _ in range(count)]

    def hear(self, device: str, said: Said, now: int) -> list[str]:
        """See `Rule`."""
        match said.what:
            case "answered":
                self.running[device] = now
            case "good" | "bad" | "undelivered":
                if self.running.pop(device, None) is not None:
                    self.counts["good" if said.what == "good" else "failed"] += 1
            case _:
                return []
        return self._decide(now)

    def _decide(self, now: int) -> list[str]:
        while self.running:
            device, since = next(iter(self.running.items()))  # in the order in which they began
            if since + SILENCE_S > now:
                break
            del self.running[device]
            self.counts["late"] += 1
        ended = sum(self.counts.values())
        for (least, share), what in ((self.failed, "failed"), (self.timed_out, "late")):
            if ended >= least and self.counts[what] >= share * ended:
                self.is_stopped = True
                return []
        return self._release(now)

    def wake(self, now: int) -> list[str]:
        """See `Rule`."""
        self._quiet = now
        return self._decide(now)

    def wake_at(self, now: int) -> int:
        """See `Rule`."""
        if not self.queue and not self.running:
            return 0
        return now + 10

    @property
    def is_done(self) -> bool:
        """See `Rule`."""
        return not self.queue and not self.running and self._quiet > 0


RULES = {
    "ours": Ours,
    "hawkBit": HawkBit,
    "hawkBit, sharp": lambda world: HawkBit(world, success=0.8, error=0.05, canary_error=0.1),
    "AWS Jobs": AwsJobs,
    "AWS Jobs, sharp": lambda world: AwsJobs(world, failed=(100, 0.05), timed_out=(100, 0.05)),
}
OURS = "ours"
