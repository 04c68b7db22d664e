"""When a model that keeps dying is given up. Core: values in, values out.

A worker that died is started again, at once the first time and then with growing pauses, so one
death costs no request. A model that dies again and again is another matter: whoever chose it is to
choose another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

DEATHS: Final = 5
"""One request that kills a worker costs two (it is sent twice), two cost four: a third such request
within the window is no accident any more. A board that is short of memory for a moment loses one or
two. Starts that fail count, since a model that does not come back serves nobody."""
WINDOW_S: Final = 120.0
"""With the pauses between restarts, five deaths at once take 4 s, and five hangs in a load are five
times `ready_s`: those are counted in a row, however long they take."""


@dataclass(frozen=True, slots=True)
class Deaths:
    """How the processes of a worker ended lately: when, s, and how many starts failed in a row."""

    times: tuple[float, ...] = ()
    failed_starts: int = 0

    def died(self, now: float) -> Deaths:
        """With one more that had served."""
        return replace(self._at(now), failed_starts=0)

    def did_not_start(self, now: float) -> Deaths:
        """With one more that did not even come to serve."""
        return replace(self._at(now), failed_starts=self.failed_starts + 1)

    @property
    def is_loop(self) -> bool:
        """Whether it is time to give the model up."""
        return len(self.times) >= DEATHS or self.failed_starts >= DEATHS

    def _at(self, now: float) -> Deaths:
        recent = tuple(time for time in self.times if now - time < WINDOW_S)
        return replace(self, times=(*recent, now))
