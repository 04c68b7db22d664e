"""What a source and a sink are: the two Protocols that a plug-in implements, and their values.

Both run in a process of their own, which the agent starts, watches and starts again. A plug-in is
an object (a module will do) that an entry point names:

    [project.entry-points."edgefleet.sources"]
    lidar = "my_package.lidar"
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_contract.canonical import Json

if TYPE_CHECKING:
    from edgefleet_agent.client.messages import Metadata


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One question to the model.

    `tensors` are arrays by input name, or the only input, of the model's dtypes and shapes.
    `metadata` goes with the result; `key` is the source's own word for it.
    """

    tensors: Mapping[str, Array] | Array
    metadata: Mapping[str, str] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the model said. `tops` is the index of the largest score a row, where there are scores;
    `ts` is milliseconds since 1970."""

    source: str
    slot: str
    version: str
    ts: int
    outputs: Tensors
    metadata: Mapping[str, str]
    tops: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer."""

    message: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A source found something that can be no question; it is counted as failed."""

    message: str


Found: TypeAlias = Item | Unreadable | None
"""What a source gives: None says that there is nothing new, and is a sign of life."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a source or a sink is given when it is opened.

    `options` are the keys of its table that are its own: it refuses those that it does not know.
    `every_s` is how often a source should look. `base` is where relative paths begin. `describe`
    asks what the model takes and gives now. `tell` says something to the agent; only what is built
    in has use for it.
    """

    name: str
    options: Mapping[str, Json]
    every_s: float
    base: Path
    describe: Callable[[], Metadata]
    tell: Callable[[dict[str, Any]], None]


class Source(Protocol):
    """Where inputs come from. Iterated once, in one thread.

    Iteration gives something every few seconds at least, None where there is nothing; where it
    ends, the source has ended for good. What is raised ends the process, and a new one follows.
    """

    def __iter__(self) -> Iterator[Found]:
        """The items."""
        ...

    def settle(self, item: Item, outcome: Answer | Failure) -> None:
        """An item is done with: its answer is with the sink, or there will be none.

        Not called for items of a live source that were dropped.
        """
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


class SourceKind(Protocol):
    """What an entry point of `edgefleet.sources` names.

    `IS_LIVE`: the world does not wait, so of items that wait for the model the oldest is dropped.
    Otherwise an item is asked for when the model has answered the one before.
    """

    IS_LIVE: bool

    def available(self) -> str:
        """Why it cannot be used on this board, in words; empty where it can."""
        ...

    def open(self, setup: Setup) -> Source:
        """A source.

        Raises:
            OperatorError: an option is wrong; the message says which.
        """
        ...


class Sink(Protocol):
    """Where results go. What is raised ends the process, and a new one follows."""

    def send(self, answer: Answer, cause: str) -> None:
        """Take a result; `cause` says why it is one that goes on its way. [wire-11.2]"""
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


class SinkKind(Protocol):
    """What an entry point of `edgefleet.sinks` names; as `SourceKind`."""

    def available(self) -> str:
        """See `SourceKind.available`."""
        ...

    def open(self, setup: Setup) -> Sink:
        """A sink.

        Raises:
            OperatorError: an option is wrong; the message says which.
        """
        ...


def waiting(until: float) -> Iterator[None]:
    """Signs of life until a moment of `time.monotonic()`: for sources that look now and then."""
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))
        if left > 1.0:
            yield None
