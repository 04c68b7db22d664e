"""How often a device that could not fetch a model is asked again, and when. No I/O, no clock.

A device tries by itself first: a broken transfer for about two hours, a file that no source has
for some seconds. What is counted here begins where it gave up. The waits double (900 s, 1800 s, …)
up to six hours, and are the same for each device: those whose line broke together give up some
minutes apart, since the pauses of devices are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgefleet_contract.errors import Malformed

MOST: Final = 10
"""The most tries that can be asked for, as in the retry configuration of AWS IoT Jobs."""
LONGEST_S: Final = 6 * 3600


@dataclass(frozen=True, slots=True)
class Retries:
    """So many times a device is asked again, first after `wait_s`; with 0, never."""

    most: int = 2
    wait_s: int = 900

    def __post_init__(self) -> None:
        if not 0 <= self.most <= MOST:
            raise Malformed(f"retries: {self.most}", hint=f"0 to {MOST}")
        if not 1 <= self.wait_s <= LONGEST_S:
            raise Malformed(f"retries: a wait of {self.wait_s} s", hint=f"1 to {LONGEST_S}")

    def wait_after(self, tries: int) -> int | None:
        """Seconds until a device is asked again of which so many tries failed; None: not at all.

        >>> [Retries().wait_after(tries) for tries in (1, 2, 3)]
        [900, 1800, None]
        """
        if tries > self.most:
            return None
        return min(LONGEST_S, self.wait_s << (tries - 1))


DEFAULT_RETRIES: Final = Retries()
