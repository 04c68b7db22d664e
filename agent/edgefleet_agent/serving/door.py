"""A path that is answered, and how it is found: the rows of the route table. Pure.

A door leads to a page (made here, at once) or to an inference (made by a worker). What a path may
hold in a place is `{name}`; it ends at a slash or a colon.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from edgefleet_agent.runtime.frames import Ask, Frame
from edgefleet_agent.serving.access import Tally
from edgefleet_agent.serving.answer import Answer
from edgefleet_agent.serving.router import Entry

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
Places: TypeAlias = dict[str, str]
Find: TypeAlias = Callable[["tuple[Entry, ...]", Places], "Entry | Answer"]
_PLACE: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page is made from: what is routed, what the path held, the body, and what the network
    asked (None: whoever asks for this page may not see it)."""

    entries: tuple[Entry, ...]
    places: Places
    body: bytes = b""
    tally: Tally | None = None


Page: TypeAlias = Callable[[Asked], Answer]


@dataclass(frozen=True, slots=True)
class Inference:
    """How a request becomes a worker's, and its answer a client's.

    `opening` is put before the body; `present` reads an answer of status 200.
    """

    ask: Ask
    find: Find
    opening: Callable[[Headers], bytes | Answer] = lambda _: b""
    present: Callable[[Frame], Answer] = lambda frame: Answer(frame.code, frame.body)


@dataclass(frozen=True, slots=True)
class Measure:
    """A door for who may measure: `takes_job`, or says what is taken."""

    takes_job: bool


@dataclass(frozen=True, slots=True)
class Door:
    """A method (`GET` stands for `HEAD` too) and a path, and what is behind. `about` is a line."""

    method: str
    path: str
    about: str
    to: Page | Inference | Measure


class Doors:
    """The route table."""

    def __init__(self, doors: Iterable[Door]) -> None:
        self.all = tuple(doors)
        by_path: dict[str, dict[str, Door]] = {}
        for door in self.all:
            by_path.setdefault(door.path, {})[door.method] = door
        self._rows = [(_pattern(path), found) for path, found in by_path.items()]

    def at(self, path: str) -> tuple[dict[str, Door], Places]:
        """The doors of a path by method, none if there are none, and what it holds."""
        for pattern, doors in self._rows:
            if found := pattern.fullmatch(path):
                return doors, found.groupdict()
        return {}, {}


def _pattern(path: str) -> re.Pattern[str]:
    parts = _PLACE.split(path)
    return re.compile(
        "".join(f"(?P<{part}>[^/:]+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )
