"""How far what a device is asked is from what a model was built on: formulas, windows of counts.

Shared by device and fleet, so that both say the same number. Only counts in bins go in. They are
seen as shares of `examples`, not of values: the numbers of one picture are no independent draws.

- Population stability index, `sum (q - p) ln(q / p)`: Siddiqi, Credit Risk Scorecards, Wiley 2006;
  it is the symmetric divergence of Jeffreys, Proc. R. Soc. A 186 (1946).
- Jensen-Shannon divergence, base 2, from 0 to 1: Lin, IEEE Trans. Inf. Theory 37 (1991).
- Empty bins: half a count is added to each bin (Krichevsky and Trofimov, IEEE Trans. Inf. Theory
  27, 1981).
- What chance alone gives: with n and m examples of one distribution in B bins, the index is
  `(1/n + 1/m)` times a chi-square of B - 1 degrees of freedom (Yurdakul, Statistical Properties of
  the Population Stability Index, 2018); its quantile is Wilson and Hilferty's, PNAS 17 (1931).

Pure; standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet_contract.bundle import Digest, is_digest
from edgefleet_contract.drift_reference import (
    MAX_BINS,
    MAX_DISTRIBUTIONS,
    Distribution,
    Kind,
    Reference,
)
from edgefleet_contract.errors import Malformed

MODERATE: Final = 0.1
MAJOR: Final = 0.25
"""The customary bounds of the index: below 0.1 no change that matters, from 0.25 a major one."""

_Z: Final = 3.0902323061678132  # the 99.9 % quantile of the normal distribution
_MOST: Final = 2**52


@dataclass(frozen=True, slots=True)
class Counted:
    """Live values of one distribution: by bin; how many of them are zero; how many are NaN or
    infinite, which are in no bin."""

    bins: tuple[int, ...]
    zeros: int = 0
    missing: int = 0

    def __post_init__(self) -> None:
        if not 1 < len(self.bins) <= MAX_BINS:
            raise Malformed(f"{len(self.bins)} bins, 2 to {MAX_BINS} are read")
        if not all(0 <= n <= _MOST for n in (*self.bins, self.zeros, self.missing)):
            raise Malformed("a count is below 0, or too large")


@dataclass(frozen=True, slots=True)
class Window:
    """What was counted of `examples` rows, in the order of the reference's distributions.

    `reference` is the SHA-256 of the `drift.json` whose bins these are.
    """

    reference: Digest
    examples: int
    counted: tuple[Counted, ...]

    def __post_init__(self) -> None:
        if not is_digest(self.reference):
            raise Malformed("a window's reference is not 64 lower-case hex digits")
        if not 0 <= self.examples <= _MOST:
            raise Malformed(f"a window of {self.examples} examples")
        if not 1 <= len(self.counted) <= MAX_DISTRIBUTIONS:
            raise Malformed(f"a window of {len(self.counted)} distributions")

    def fits(self, reference: Reference) -> bool:
        """Whether it has the bins of a reference."""
        return [len(one.bins) for one in self.counted] == [
            len(one.counts) for one in reference.distributions
        ]


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far one distribution is from its reference.

    `noise` is the index that chance alone exceeds once in a thousand windows of this size.
    """

    tensor: str
    kind: Kind
    column: int
    psi: float
    js: float
    noise: float

    def is_above(self, bound: float) -> bool:
        """Whether the index is above a bound, and not by chance."""
        return self.psi > max(bound, self.noise)


def compare(reference: Reference, window: Window) -> tuple[Divergence, ...]:
    """How far each distribution is off; none where the window is empty or has other bins."""
    if not window.examples or not window.fits(reference):
        return ()
    pairs = zip(reference.distributions, window.counted, strict=True)
    return tuple(
        _divergence(before, now, reference.examples, window.examples)
        for before, now in pairs
        if sum(now.bins) + now.missing
    )


def has_drifted(reference: Reference, window: Window, *, bound: float = MAJOR) -> bool:
    """Whether anything that is counted is above a bound, and not by chance."""
    return any(one.is_above(bound) for one in compare(reference, window))


def psi(before: Sequence[float], now: Sequence[float]) -> float:
    """The population stability index of shares that are all above 0.

    >>> round(psi((0.5, 0.5), (0.5, 0.5)), 6), round(psi((0.5, 0.5), (0.9, 0.1)), 4)
    (0.0, 0.8789)
    """
    return sum((q - p) * math.log(q / p) for p, q in zip(before, now, strict=True))


def jensen_shannon(before: Sequence[float], now: Sequence[float]) -> float:
    """The Jensen-Shannon divergence of shares, in bits.

    >>> jensen_shannon((1.0, 0.0), (0.0, 1.0)), jensen_shannon((0.3, 0.7), (0.3, 0.7))
    (1.0, 0.0)
    """

    def part(share: float, other: float) -> float:
        return share * math.log2(2 * share / (share + other)) / 2 if share > 0 else 0.0

    found = sum(part(p, q) + part(q, p) for p, q in zip(before, now, strict=True))
    return min(1.0, max(0.0, found))


def noise(bins: int, before: int, now: int) -> float:
    """The index that chance alone exceeds once in a thousand times, with so many examples.

    >>> round(noise(10, 1000, 1000), 4)
    0.0561
    """
    free = bins - 1
    part = 2 / (9 * free)
    return float(free * (1 - part + _Z * math.sqrt(part)) ** 3 * (1 / before + 1 / now))


def minimum_sample(bins: int, before: int, *, bound: float = MAJOR) -> int | None:
    """How many live examples it takes until chance stays below a bound; None: the reference has too
    few for any number of them.

    >>> minimum_sample(10, 1000), minimum_sample(10, 100, bound=0.1)
    (127, None)
    """
    left = bound / noise(bins, 2, 2) - 1 / before
    return math.ceil(1 / left) if left > 0 else None


def merge(first: Window, second: Window) -> Window:
    """The window of all that two windows of one reference counted; law: as if counted at once.

    Raises:
        ValueError: they are of two references, or of other bins.
    """
    if first.reference != second.reference:
        raise ValueError("windows of two references cannot be merged")
    counted = tuple(
        Counted(
            tuple(a + b for a, b in zip(one.bins, other.bins, strict=True)),
            one.zeros + other.zeros,
            one.missing + other.missing,
        )
        for one, other in zip(first.counted, second.counted, strict=True)
    )
    return Window(first.reference, first.examples + second.examples, counted)


def _divergence(before: Distribution, now: Counted, examples: int, live: int) -> Divergence:
    bins: tuple[int, ...] = now.bins
    held: tuple[int, ...] = before.counts
    if now.missing:  # NaN is a bin of its own, which the reference has empty
        bins, held = (*bins, now.missing), (*held, 0)
    p, q = _shares(held, examples), _shares(bins, live)
    js = jensen_shannon(tuple(n / sum(held) for n in held), tuple(n / sum(bins) for n in bins))
    told = psi(p, q), js, noise(len(bins), examples, live)
    return Divergence(before.tensor, before.kind, before.column, *told)


def _shares(counts: Sequence[int], examples: int) -> tuple[float, ...]:
    """Shares as of so many examples, with half a count in each bin more."""
    total = sum(counts)
    return tuple((n * examples / total + 0.5) / (examples + 0.5 * len(counts)) for n in counts)
