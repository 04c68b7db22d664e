"""Pages of a list: where a page ends, and the cursor that the next one begins behind. Pure.

A cursor is the key of the last row that was given, not a count of rows: whoever follows pages sees
each row once that was there all the time, whatever is added or removed meanwhile
[fleet-api-12.2]. For clients it is a text without a meaning; it names its list, so that one of
another list is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from edgefleet_contract.errors import Malformed

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_CURSOR: Final = 1200

T = TypeVar("T")
Key = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows, and the key of the last one where more follow."""

    rows: tuple[T, ...]
    last: Key | None

    def cursor(self, noun: str) -> str | None:
        """Where the next page of a list begins; None at the end."""
        return render_cursor(noun, self.last) if self.last is not None else None


def cut(
    rows: Iterable[T],
    key: Callable[[T], Key],
    *,
    limit: int,
    after: Key | None,
    newest_first: bool = False,
) -> Page[T]:
    """The page of all rows behind a key, ordered by their keys (falling with `newest_first`)."""
    ordered = sorted(rows, key=key, reverse=newest_first)
    if after is not None and newest_first:
        ordered = [row for row in ordered if key(row) < after]
    elif after is not None:
        ordered = [row for row in ordered if key(row) > after]
    return page_of(ordered[: limit + 1], key, limit=limit)


def page_of(rows: Sequence[T], key: Callable[[T], Key], *, limit: int) -> Page[T]:
    """A page of rows of which one more than `limit` was asked for."""
    kept = tuple(rows[:limit])
    return Page(kept, key(kept[-1]) if len(rows) > limit else None)


def render_cursor(noun: str, key: Key) -> str:
    """A cursor behind the row of a key. `parse_cursor(n, render_cursor(n, k), ...) == k`."""
    raw = json.dumps([noun, *key], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def parse_cursor(noun: str, text: str, *kinds: type[int] | type[str]) -> Key:
    """The key of a cursor of this list.

    Raises:
        Malformed: it is none, or is another list's.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw)
    except (ValueError, binascii.Error, RecursionError):
        found = None
    if (
        not isinstance(found, list)
        or [type(part) for part in found] != [str, *kinds]
        or found[0] != noun
        or any(isinstance(part, int) and abs(part) >= 2**63 for part in found)
    ):
        raise Malformed(f"after: this is no cursor of {noun}", hint="take `next` of a page")
    return tuple(found[1:])
