"""A fleet that never was: devices with fates, for comparing rules that roll a model out to them.

A device's fate depends on the seed and its name alone, so each rule meets the same fleet. A model
is bad on some share of one hardware class, in one of four ways:

- `error`: it fails its self-test there, and the device says so
- `brick`: the board is never heard of again once the model runs
- `slow`: it serves, and its 95th percentile is over the envelope
- `drift`: it serves, and answers otherwise than the model before

Besides, as in any fleet: boards that are off, downloads that fail, and a few failures by chance.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from edgefleet_fleet.model_gates import Evidence, Reference

MODES = ("error", "brick", "slow", "drift")
KINDS = (("Pi 5", 0.4), ("Pi 4", 0.3), ("Pi 3", 0.2), ("Zero 2 W", 0.1))
ILL = "Pi 4"
"""The hardware class that the model is bad on."""
REFERENCE = Reference(outputs=(3000, 2000, 1500, 1000, 1000, 800, 500, 200))
DRIFTED = (200, 500, 800, 1000, 1000, 1500, 2000, 3000)
OFF, UNDELIVERED, FAILS, DIES = 0.03, 0.01, 0.003, 0.001
"""Shares of all devices, whatever the model."""
TELLS_S = (120, 420, 900, 1800)
"""When a device tells of its model, seconds after its commit."""
REQUESTS = 60
WHATS = ("answered", "active", "good", "bad", "undelivered", "told")
DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Said:
    """Something that a device says of the model: `what` is `answered`, `active`, `good`, `bad`,
    `undelivered` or `told` (with what it told)."""

    what: str
    told: Evidence | None = None
    outputs: tuple[int, ...] = ()


@dataclass
class World:
    """`size` devices and a model that is bad on `share` of `ILL` in `mode`."""

    size: int
    mode: str
    share: float
    seed: int
    kinds: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        rng = random.Random(f"kinds-{self.seed}")
        names, weights = zip(*KINDS, strict=True)
        drawn = rng.choices(names, weights, k=self.size)
        self.kinds = {f"d{number:05}": kind for number, kind in enumerate(drawn)}

    def canaries(self, count: int) -> tuple[str, ...]:
        """Some devices, whatever they are."""
        return tuple(sorted(random.Random(f"canaries-{self.seed}").sample(list(self.kinds), count)))

    def is_ill(self, device: str) -> bool:
        """Whether the model is bad there."""
        if self.kinds[device] != ILL:
            return False
        return random.Random(f"ill-{self.seed}-{device}").random() < self.share

    def fate(self, device: str) -> Iterator[tuple[int, Said]]:
        """What it says once it is asked, and how many seconds later."""
        rng = random.Random(f"fate-{self.seed}-{device}")
        at = 1 + int(rng.expovariate(1 / 5))
        if rng.random() < OFF:
            return
        yield at, Said("answered")
        at += 10 + int(rng.lognormvariate(4.0, 0.6))
        if rng.random() < UNDELIVERED:
            yield at, Said("undelivered")
            return
        yield at, Said("active")
        luck, ill = rng.random(), self.is_ill(device)
        if (ill and self.mode == "error") or luck < FAILS:
            yield at + 8, Said("bad")
            return
        if (ill and self.mode == "brick") or luck < FAILS + DIES:
            return
        at += 68
        yield at, Said("good")
        outputs = [0] * len(DRIFTED)
        weights = DRIFTED if ill and self.mode == "drift" else REFERENCE.outputs
        for count, after in enumerate(TELLS_S, start=1):
            for drawn in rng.choices(range(len(weights)), weights, k=REQUESTS):
                outputs[drawn] += 1
            told = Evidence(
                requests=REQUESTS * count,
                failures=int(rng.random() < 0.05),
                measured=1,
                slow=int(ill and self.mode == "slow"),
                outputs=tuple(outputs),
            )
            yield at + after, Said("told", told)


class Rule(Protocol):
    """Something that rolls out: whom it asks now, and when it wants to be woken."""

    listens = False
    """Whether it looks at what the model answers; else it is not told."""
    recalls = ""
    """Whose orders it takes back when it stops: of nobody, of those that have not `answered`, or
    of those on which it is not yet `active`."""

    def begin(self, now: int) -> list[str]:
        """It begins."""
        ...

    def hear(self, device: str, said: Said, now: int) -> list[str]:
        """A device says something."""
        ...

    def wake(self, now: int) -> list[str]:
        """Time went on."""
        ...

    def wake_at(self, now: int) -> int:
        """When to wake it; 0: it waits for devices alone."""
        ...

    @property
    def is_stopped(self) -> bool:
        """Whether it gave up."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether everybody was asked, and it has nothing more to do."""
        ...


@dataclass(frozen=True)
class Blast:
    """How a rollout went: devices that ran the model, ill ones among them, and seconds it took."""

    stopped: bool
    completed: bool
    reached: int
    harmed: int
    seconds: int


def play(rule: Rule, world: World, *, days: int = 4) -> Blast:
    """Roll out to a world; until the rule stops, is done, or days went by.

    Whoever was asked when it stops goes on with it, unless the rule takes its order back.
    """
    heap: list[tuple[int, int, str, Said | None]] = []
    numbers = itertools.count()
    said_so: dict[str, set[str]] = {what: set() for what in WHATS}
    asked: dict[str, int] = {}
    fates: dict[str, Iterator[tuple[int, Said]]] = {}
    now, wake = 0, 0

    def push_next(device: str) -> None:
        after = next(fates[device], None)
        if after is not None:
            heapq.heappush(heap, (asked[device] + after[0], next(numbers), device, after[1]))

    def ask(devices: list[str]) -> None:
        for device in devices:
            assert device not in asked, "asked twice"
            asked[device] = now
            fates[device] = world.fate(device)
            push_next(device)

    ask(rule.begin(0))
    while not rule.is_stopped and not rule.is_done and now < days * DAY_S:
        due = rule.wake_at(now)
        if due and (not wake or due < wake or wake <= now):
            wake = max(due, now + 1)
            heapq.heappush(heap, (wake, next(numbers), "", None))
        if not heap:
            break
        now, _, device, said = heapq.heappop(heap)
        if said is None:
            ask(rule.wake(now))
            continue
        said_so[said.what].add(device)
        if rule.listens or said.what != "good":
            push_next(device)
        ask(rule.hear(device, said, now))
    reached = [
        device
        for device in asked
        if (not (rule.is_stopped and rule.recalls) or device in said_so[rule.recalls])
        and any(said.what == "active" for _, said in world.fate(device))
    ]
    harmed = sum(world.is_ill(device) for device in reached)
    return Blast(rule.is_stopped, rule.is_done, len(reached), harmed, now)
