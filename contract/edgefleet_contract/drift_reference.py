"""What a variant took and gave when it was built, as histograms: `drift.json` [bundle-11].

A device counts the same of what it is asked, and whoever has both can say how far they are apart
(`drift`). The document holds no value of a single example: a bin holds none, or `least` of them.

Pure. Law: `parse_reference(render_reference(r)) == r`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import Malformed

SCHEMA: Final = "edgefleet.drift/1"
MAX_BYTES: Final = 64 * 1024
MAX_DISTRIBUTIONS: Final = 64
MAX_BINS: Final = 65
FEWEST: Final = 5
"""The lowest `least` that is read: fewer would tell of single examples."""


class Kind(StrEnum):
    """What is read out of a tensor: its numbers, or what a row of it says."""

    NUMBER = "number"
    LENGTH = "length"
    CLASS = "class"
    TOP = "top"
    ENTROPY = "entropy"


@dataclass(frozen=True, slots=True)
class Distribution:
    """How values of one tensor were distributed over the held-out examples.

    `column` is that of a table, -1 where all numbers of the tensor count alike. A value is in the
    first bin whose edge is not below it, or in the last bin. Classes have a bin each, in the order
    of `classes`, and the last bin is for all others. `counts` are values in each bin; `zeros` is
    the share of values that are zero. `mean`, `deviation`, and `low` and `high`, beyond which as
    many examples lie as `least` says, are there for numbers.
    """

    tensor: str
    kind: Kind
    counts: tuple[int, ...]
    column: int = -1
    edges: tuple[float, ...] = ()
    classes: tuple[int, ...] = ()
    zeros: float = 0.0
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        what = f"distribution of {self.tensor[:80]!r}"
        bounds = self.classes if self.kind is Kind.CLASS else self.edges
        if len(self.counts) != len(bounds) + 1 or not 1 < len(self.counts) <= MAX_BINS:
            raise Malformed(f"{what}: {len(self.counts)} counts for {len(bounds)} bounds")
        if min(self.counts) < 0 or not sum(self.counts):
            raise Malformed(f"{what}: counts below 0, or none above")
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise Malformed(f"{what}: edges that do not rise")
        if not all(map(math.isfinite, self.edges)):
            raise Malformed(f"{what}: an edge that is not finite")
        if len(set(self.classes)) != len(self.classes):
            raise Malformed(f"{what}: a class stands twice")


@dataclass(frozen=True, slots=True)
class Reference:
    """`drift.json`: of so many examples, what clients send and what they get."""

    examples: int
    least: int
    inputs: tuple[Distribution, ...]
    outputs: tuple[Distribution, ...]
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if self.least < FEWEST or self.examples < 2 * self.least:
            raise Malformed(f"{self.examples} examples, at least {self.least} in a bin")
        if not 1 <= len(self.distributions) <= MAX_DISTRIBUTIONS:
            raise Malformed(
                f"{len(self.distributions)} distributions, 1 to {MAX_DISTRIBUTIONS} are read"
            )

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """All, in the order in which a window counts them."""
        return self.inputs + self.outputs


def render_reference(reference: Reference) -> bytes:
    """The bytes of `drift.json`: sorted keys, no blanks, one line end."""
    value = codec.encode(reference)
    return (
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"
    ).encode()


def parse_reference(raw: bytes, *, what: str = "drift.json") -> Reference:
    """The reference in bytes of a bundle.

    Raises:
        Malformed: another schema, too large, or not what is described here.
    """
    if len(raw) > MAX_BYTES:
        raise Malformed(f"{what}: {len(raw)} bytes, at most {MAX_BYTES} are read")
    value = canonical.parse_message(raw, what=what)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise Malformed(f"{what}: not of schema {SCHEMA!r}")
    return codec.decode(Reference, value, what=what)
