"""What sequences carry on from one request to the next: bounded in number and in idle time.

Pure: the time is an argument. Where there are too many, the one that was asked least recently goes.
What is not here is never made up: who continues such a sequence is told so.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

S = TypeVar("S")


class UnknownSequence(Exception):
    """A request continues a sequence whose state is not here. The client's to begin anew."""


class Sequences(Generic[S]):
    """The states of at most `limit` sequences, each kept for `idle_s` after its last request."""

    def __init__(self, *, limit: int, idle_s: float) -> None:
        self._limit, self._idle_s = limit, idle_s
        self._states: OrderedDict[str, tuple[S, float]] = OrderedDict()  # least recent first

    def __len__(self) -> int:
        return len(self._states)

    def get(self, id_: str, now: float) -> S:
        """The state of a sequence.

        Raises:
            UnknownSequence: it never began, ended, was idle for too long, or had to give way.
        """
        self._forget_idle(now)
        found = self._states.get(id_)
        if found is None:
            raise UnknownSequence(
                f"sequence {id_!r} is not known here: it was not started, ended, was idle for more"
                f" than {self._idle_s:g} s, gave way to others ({self._limit} are kept), or its"
                " worker was replaced; start it anew"
            )
        return found[0]

    def put(self, id_: str, state: S, now: float) -> None:
        """Keep the state of a sequence that was asked just now."""
        self._forget_idle(now)
        self._states[id_] = (state, now)
        self._states.move_to_end(id_)
        while len(self._states) > self._limit:
            self._states.popitem(last=False)

    def drop(self, id_: str) -> None:
        """Forget a sequence, if it is known."""
        self._states.pop(id_, None)

    def _forget_idle(self, now: float) -> None:
        while self._states:
            id_, (_, asked) = next(iter(self._states.items()))
            if now - asked <= self._idle_s:
                return
            del self._states[id_]
