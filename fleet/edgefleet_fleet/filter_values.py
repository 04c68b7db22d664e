"""How what a device has is held against what a filter says: patterns, numbers, versions. No I/O."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

_STAGES: Final = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "pre": 3, "rc": 3}
_VERSION: Final = re.compile(
    rf"v?(?P<numbers>[0-9]{{1,18}}(?:\.[0-9]{{1,18}})*)"
    rf"(?:[._-]?(?P<stage>{'|'.join(_STAGES)})[._-]?(?P<nth>[0-9]{{0,18}})(?![a-z]))?"
)


class Op(StrEnum):
    """How a value is held against another."""

    IS = "="
    IS_NOT = "!="
    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="


def is_like(text: str, pattern: str) -> bool:
    """Whether a text is what a pattern says; `*` is any text, `?` any character.

    >>> is_like("hall-3", "hall-?") and is_like("rpi4", "*") and not is_like("rpi5", "rpi4*")
    True
    """
    at, here, star, mark = 0, 0, -1, 0
    while at < len(text):
        if here < len(pattern) and pattern[here] == "*":
            star, mark, here = here, at, here + 1
        elif here < len(pattern) and pattern[here] in ("?", text[at]):
            at, here = at + 1, here + 1
        elif star >= 0:
            mark += 1
            at, here = mark, star + 1
        else:
            return False
    return all(sign == "*" for sign in pattern[here:])


def is_version(text: str) -> bool:
    """Whether a text is a number or a version, so that others can be above and below it."""
    return _VERSION.match(text.lower()) is not None


def version_key(text: str) -> tuple[tuple[int, ...], int, int]:
    """A version as what versions are ordered by: its leading numbers, then whether it came before
    these were released (`rc1`, `dev3`). What else follows says nothing; it begins with a number.

    >>> version_key("1.10") > version_key("1.9") > version_key("1.9rc1") > version_key("1.9a2")
    True
    >>> version_key("2.0") == version_key("2") == version_key("2.0+rpi1")
    True
    """
    match = _VERSION.match(text.lower())
    assert match is not None, text
    numbers = [int(part) for part in match["numbers"].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    stage = match["stage"]
    return tuple(numbers), _STAGES[stage] if stage else len(_STAGES), int(match["nth"] or 0)


def is_ordered(found: str, op: Op, value: str) -> bool:
    """Whether one is before or after another as `op` asks; what is no version is neither."""
    if not is_version(found):
        return False
    one, other = version_key(found), version_key(value)
    match op:
        case Op.BELOW:
            return one < other
        case Op.AT_MOST:
            return one <= other
        case Op.ABOVE:
            return one > other
        case _:
            return one >= other
