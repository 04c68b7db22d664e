"""How data that is no array is to be read: parts of a recipe's `[data]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 2 * 2**30  # of the examples of one file or folder, as arrays
MAX_EXAMPLES: Final = 1_000_000
MODES: Final = ("RGB", "L")


@dataclass(frozen=True, slots=True)
class Images:
    """`size`: height and width that pictures are brought to; `mode`: RGB, or L for grey."""

    size: tuple[int, ...] = ()
    mode: str = "RGB"


@dataclass(frozen=True, slots=True)
class Audio:
    """`samples`: the length that recordings are cut or filled up to; `rate`: what each has, Hz."""

    samples: int | None = None
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """`truth`: the column of the true class; `columns`: those that the model takes, in order."""

    truth: str = "y"
    columns: tuple[str, ...] = ()


def wish_checks(images: Images, audio: Audio, table: Table) -> tuple[tuple[str, bool], ...]:
    """What must hold, with what to say where it does not."""
    return (
        (
            "data.images.size: height and width, 1 to 8192 each",
            len(images.size) in (0, 2) and all(1 <= side <= 8192 for side in images.size),
        ),
        (f"data.images.mode: {' or '.join(MODES)}", images.mode in MODES),
        ("data.audio.samples: 1 to 10000000", audio.samples is None or 1 <= audio.samples <= 10**7),
        ("data.audio.rate: 1 to 1000000", audio.rate is None or 1 <= audio.rate <= 10**6),
        (
            "data.table.columns: names one twice, or the truth",
            len({*table.columns, table.truth}) == len(table.columns) + 1,
        ),
    )
