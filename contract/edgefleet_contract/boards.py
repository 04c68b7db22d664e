"""Which hardware class a board is, by what it calls itself: `rpi4`, `zero2w`, …

The names are those that recipes use ([recipe-11]); a board that is none of them is of the class
of its processor. Without I/O: the device reads its name, and so does a fleet for older agents.
"""

from __future__ import annotations

from typing import Final

_NAMED: Final = (
    ("raspberry pi zero 2", "zero2w"),
    ("raspberry pi zero", "rpi-zero"),
    ("raspberry pi compute module 5", "rpi5"),
    ("raspberry pi compute module 4", "rpi4"),
    ("raspberry pi compute module 3", "rpi3"),
    ("raspberry pi 500", "rpi5"),
    ("raspberry pi 5", "rpi5"),
    ("raspberry pi 400", "rpi4"),
    ("raspberry pi 4", "rpi4"),
    ("raspberry pi 3", "rpi3"),
    ("raspberry pi 2", "rpi2"),
)


def class_of(board: str, hw: str) -> str:
    """The hardware class of a board that calls itself `board` and has a processor of kind `hw`.

    >>> class_of("Raspberry Pi 4 Model B Rev 1.5", "arm64")
    'rpi4'
    >>> class_of("Standard PC", "x86-64")
    'x86-64'
    """
    name = board.lower()
    return next((found for start, found in _NAMED if name.startswith(start)), hw)
