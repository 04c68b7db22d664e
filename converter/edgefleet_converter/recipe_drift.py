"""The wishes about the drift reference: the `[drift]` table of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from edgefleet_contract.drift_reference import FEWEST, MAX_BINS


@dataclass(frozen=True, slots=True)
class Drift:
    """Whether histograms of the held-out examples go into the bundle, in at most so many bins, of
    `least_examples` or none."""

    enabled: bool = True
    bins: int = 10
    least_examples: int = 10


def drift_checks(drift: Drift) -> tuple[tuple[str, bool], ...]:
    """What must hold, and the words for where it does not."""
    return (
        (f"drift.bins: 2 to {MAX_BINS - 1}", 2 <= drift.bins < MAX_BINS),
        (f"drift.least_examples: {FEWEST} or more", drift.least_examples >= FEWEST),
    )
