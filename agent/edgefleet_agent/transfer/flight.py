"""Blocks that were asked for and are on their way, and which of them will not come.

Nothing overtakes on the way: a fleet answers in the order in which it was asked, and a broker
keeps it. So a block is late where nothing at all has come for as long as one is waited for, or
where one that was asked for after it is there. A link that is slow loses nothing, and asking again
would only make it slower. No clock: times are given, in seconds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from edgefleet_agent.transfer.window import Window


@dataclass(frozen=True, slots=True)
class _Asked:
    at: float
    first_at: float
    number: int
    size: int


class Flight:
    """What is on its way in one transfer, whose blocks have `length` bytes, or fewer."""

    def __init__(self, window: Window, length: int) -> None:
        self._window, self._length = window, length
        self._asked: dict[int, _Asked] = {}
        self._known: dict[int, float] = {}
        self._numbers = itertools.count(1)
        self._overtaken = 0
        self._heard = 0.0

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, offset: int, size: int, *, now: float) -> None:
        """A block of `size` bytes was asked for."""
        first_at = self._known.setdefault(offset, now)
        self._asked[offset] = _Asked(now, first_at, next(self._numbers), size)

    def hear(self, *, now: float) -> None:
        """A block came, be it one that is there already: the way is open."""
        self._heard = now

    def came(self, offset: int, *, now: float) -> None:
        """A block came that was missing."""
        self.hear(now=now)
        asked = self._asked.pop(offset, None)
        if asked is None:
            self._window.came(None)
            return
        is_clear = asked.at == asked.first_at  # else nobody knows which request it answers
        if is_clear:
            self._overtaken = max(self._overtaken, asked.number)
        is_timed = is_clear and asked.size == self._length
        self._window.came(now - asked.at if is_timed else None)
        if not is_timed:
            self._window.guess((now - asked.first_at) * self._length / asked.size)

    def take_late(self, *, now: float) -> list[int]:
        """Those that will not come: they are on their way no more, and the window halves."""
        late = [o for o, asked in self._asked.items() if now - self._since(asked) > self._wait_s]
        for offset in late:
            del self._asked[offset]
        if late:
            self._window.lost()
        return late

    def take_all(self) -> list[int]:
        """The link went: nothing is on its way any more."""
        asked = list(self._asked)
        self._asked.clear()
        return asked

    @property
    def _wait_s(self) -> float:
        return self._window.wait_s

    def _since(self, asked: _Asked) -> float:
        """From when on it is waited for."""
        return asked.at if asked.number < self._overtaken else max(asked.at, self._heard)
