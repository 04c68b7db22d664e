"""How the settings of a step are read and bounded: integers as they are, other numbers from text.

A manifest has no floats [bundle-2.1], so `"0.485"`, `"1/255"` and `"1e-10"` are text, read exactly
and rounded once, to the nearest float64.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from edgefleet_contract.errors import Malformed

_NUMBER: Final = re.compile(r"-?\d{1,17}(/\d{1,17}|(\.\d{1,17})?(e-?\d{1,2})?)", re.ASCII)
_LARGEST: Final = 3.0e38  # as float32 has it


def number(text: str, what: str) -> float:
    """The number that a setting says: a decimal, with or without exponent, or a fraction.

    Raises:
        Malformed: anything else, a division by zero, or more than float32 holds.
    """
    if not _NUMBER.fullmatch(text):
        raise Malformed(f"{what} is {text[:40]!r}, expected a number such as '0.5' or '1/255'")
    try:
        value = float(Fraction(text))
    except ZeroDivisionError:
        raise Malformed(f"{what} is {text!r}: a division by zero") from None
    if abs(value) > _LARGEST:
        raise Malformed(f"{what} is {text!r}: more than float32 holds")
    return value


def numbers(found: tuple[str, ...], what: str) -> tuple[float, ...]:
    """`number`, of a list that has at least one."""
    if not found:
        raise Malformed(f"{what} is empty")
    within(len(found), what=f"the length of {what}", least=1, most=4096)
    return tuple(number(text, what) for text in found)


def positive(text: str, what: str) -> float:
    """`number`, if it is over 0."""
    value = number(text, what)
    if value <= 0:
        raise Malformed(f"{what} is {text!r}, must be over 0")
    return value


def within(value: int, *, what: str, least: int, most: int) -> None:
    """Refuse an integer out of its bounds."""
    if not least <= value <= most:
        raise Malformed(f"{what} is {value}, must be from {least} to {most}")


def axis_of(value: int) -> None:
    """Refuse the batch axis: rows of a batch never mix."""
    if value == 0 or not -8 <= value <= 8:
        raise Malformed(f"axis is {value}, must not be 0, which is the batch's, nor over 8")
