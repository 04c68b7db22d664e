"""A real model, its copies in the formats of devices, and what is played to each of them.

What is played knows nothing of who runs it: the plain runtime and the served copy get the same, and
must answer the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgefleet_agent.runtime.engine import Tensors
from edgefleet_contract.bundle import Format


class Player(Protocol):
    """Who runs a copy."""

    def run(self, feeds: Tensors) -> Tensors:
        """One inference."""
        ...

    def reset(self) -> None:
        """As after the start: what a model remembers inside is forgotten."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """How many of a labelled set were right, and the least share that is good."""

    what: str
    right: int
    of: int
    minimum: float

    @property
    def share(self) -> float:
        return self.right / self.of

    @property
    def is_good(self) -> bool:
        return self.share >= self.minimum


@dataclass
class Played:
    """Every answer in order, and what they were worth."""

    answers: list[Tensors] = field(default_factory=list)
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """A model file. `warm` are its golden calls; a worker makes the first before it serves.

    `slack` is how far a golden answer may stray in the trial, which calls one after the other: 0
    but for models that remember.
    """

    format: Format
    raw: bytes
    origin: str
    warm: tuple[Tensors, ...]
    slack: int = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """`empty` says of each format without a copy why. `play` runs what there is to play."""

    number: int
    name: str
    copies: tuple[Copy, ...]
    play: Callable[[Player, Copy], Played]
    empty: dict[Format, str] = field(default_factory=dict)


def classify(
    x: np.ndarray, y: np.ndarray, what: str, minimum: float, *, batch: int = 64
) -> Callable[[Player, Copy], Played]:
    """Rows in batches; the largest of the first output is the class."""

    def play(player: Player, copy: Copy) -> Played:
        (name,) = copy.warm[0]
        played, right = Played(), 0
        for start in range(0, len(x), batch):
            rows = slice(start, start + batch)
            answer = player.run({name: x[rows]})
            played.answers.append(answer)
            first = next(iter(answer.values()))
            right += int((first.argmax(1) == y[rows]).sum())
        played.scores = (Score(what, right, len(y), minimum),)
        return played

    return play
