"""Where an install on a device stands, in one word.

These are the words alone; which follows which is the agent's table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where an install on a device stands."""

    IDLE = "idle"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    STAGED = "staged"
    WAIT_WINDOW = "wait_window"
    SELFTEST = "selftest"
    SHADOW = "shadow"
    CANARY = "canary"
    ACTIVATING = "activating"
    PROBATION = "probation"
    COMMITTED = "committed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    FAILED = "failed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"

    @property
    def is_final(self) -> bool:
        """Whether an install ends here."""
        return self in _FINAL


_FINAL: Final = frozenset(
    {
        Phase.COMMITTED,
        Phase.REJECTED,
        Phase.CANCELED,
        Phase.FAILED,
        Phase.ROLLED_BACK,
        Phase.ROLLBACK_FAILED,
    }
)
