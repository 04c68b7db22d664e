"""What the agent knows of the drift of one version that serves: counts to report, and how far off.

Windows come from the worker about once a second. They are judged together once they hold enough
examples, and reported once they hold as many as a bin of the reference must: fewer would tell of
single requests. Core: values in, values out.
"""

from __future__ import annotations

from typing import Final

from edgefleet_contract.drift import Divergence, Window, compare, merge
from edgefleet_contract.drift_reference import Reference

JUDGED: Final = 200
"""Examples that are judged together."""


class DriftWatch:
    """The drift of one version, against its reference."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.judged: tuple[Divergence, ...] = ()
        self.examples = 0
        self._open: Window | None = None
        self._untold: Window | None = None

    def add(self, window: Window) -> bool:
        """Take what a worker counted; whether there is a new judgement."""
        if not window.fits(self.reference):
            return False
        self._untold = _with(self._untold, window)
        self._open = _with(self._open, window)
        if self._open.examples < max(JUDGED, self.reference.least):
            return False
        self.judged, self.examples = compare(self.reference, self._open), self._open.examples
        self._open = None
        return True

    def take(self) -> Window | None:
        """What to report: all since the last time; None while that is too little."""
        if self._untold is None or self._untold.examples < self.reference.least:
            return None
        window, self._untold = self._untold, None
        return window


def _with(held: Window | None, window: Window) -> Window:
    return window if held is None else merge(held, window)
