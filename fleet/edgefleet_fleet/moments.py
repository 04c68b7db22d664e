"""Moments as a person writes them: `2h`, `7d`, a date, seconds since 1970. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from edgefleet_contract.errors import OperatorError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO: Final = re.compile(r"(\d{1,9})([smhdw])")


def parse_moment(text: str, *, now: int) -> int:
    """Seconds since 1970 of a moment: so long ago, an ISO date (UTC where it names no zone), or
    the number itself. Empty: 0.

    >>> parse_moment("2h", now=10_000)
    2800
    >>> parse_moment("2026-11-26", now=0)
    1795651200

    Raises:
        OperatorError: it is none of these.
    """
    if not text:
        return 0
    if ago := _AGO.fullmatch(text):
        return max(0, now - int(ago[1]) * _UNITS[ago[2]])
    if text.isdigit() and len(text) > 8:
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise OperatorError(
            f"{text[:40]!r} is no moment", hint="2h, 7d, 2026-11-26, or 2026-11-26T09:30"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
