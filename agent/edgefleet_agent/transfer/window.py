"""How many blocks may be on their way at once, and how long one is waited for.

The window grows by one for each window that came whole, and halves when a block does not come
(additive increase, multiplicative decrease). How long a block is waited for follows the round trip
as in RFC 6298, section 2; until a whole block was timed, it is guessed from a short one. No clock:
times are given.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 8
FIRST_WAIT_S: Final = 3.0
WAITS_S: Final = (0.5, 30.0)


class Window:
    """The window of one transfer; it begins at 8, and `size` is never above `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = min(FIRST, most)
        self.wait_s = FIRST_WAIT_S
        self._came = 0
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    def came(self, rtt_s: float | None) -> None:
        """A block came; `rtt_s` where it was asked for once only (Karn's rule)."""
        self._came += 1
        if self._came >= self.size:
            self._came = 0
            self.size = min(self.most, self.size + 1)
        if rtt_s is not None:
            self._measure(rtt_s)

    def guess(self, rtt_s: float) -> None:
        """A whole block may take so long, or less: none was timed as yet."""
        if self._mean_s is None:
            self.wait_s = max(self.wait_s, _within(3 * rtt_s))  # as after a first measurement

    def lost(self) -> None:
        """Blocks did not come in time."""
        self._came = 0
        self.size = max(1, self.size // 2)
        self.wait_s = min(WAITS_S[1], self.wait_s * 2)

    def _measure(self, rtt_s: float) -> None:
        if self._mean_s is None:
            self._mean_s, self._deviation_s = rtt_s, rtt_s / 2
        else:
            self._deviation_s += (abs(self._mean_s - rtt_s) - self._deviation_s) / 4
            self._mean_s += (rtt_s - self._mean_s) / 8
        self.wait_s = _within(self._mean_s + max(0.1, 4 * self._deviation_s))


def _within(wait_s: float) -> float:
    return min(max(wait_s, WAITS_S[0]), WAITS_S[1])
