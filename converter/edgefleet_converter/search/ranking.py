"""Which candidate is best: bounds, the objective, and the Pareto front. Pure.

Figures that tie are settled by name, so that one set of figures has one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgefleet_converter.search.figures import CandidateReport, Fidelity
from edgefleet_converter.search.wishes import Objective

NEAR_SIZE: Final = 1.01
"""Sizes within one percent of the smallest count as equal; then the SQNR decides."""
NEAR_TIME: Final = 1.05
"""The same where times count, which are measured, and never twice alike: five percent."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a candidate may cost. `metric_float` is what the float model reaches, if asked."""

    max_accuracy_drop: float
    min_sqnr_db: float
    min_agreement: float = 0.0
    max_metric_drop: float = 0.0
    metric_float: float | None = None


def outside(fidelity: Fidelity, bounds: Bounds, *, for_certain: bool = False) -> str:
    """What a candidate is over, in words; empty where it is inside.

    Without classes, the share of examples decided otherwise stands for the drop of accuracy. With
    `for_certain`, shares are over only where their whole 95 % interval is: few examples that were
    kept back say little, and what they say must not be chance.
    """
    drop, same = None, None
    if fidelity.agreement is not None:
        same = fidelity.agreement.high if for_certain else fidelity.agreement.value
        drop = 1.0 - same
    if fidelity.accuracy_drop is not None:
        drop = fidelity.accuracy_drop.low if for_certain else fidelity.accuracy_drop.value
    least = "for certain " if for_certain else ""
    if fidelity.sqnr_db < bounds.min_sqnr_db:
        return f"SQNR {fidelity.sqnr_db:.1f} dB, at least {bounds.min_sqnr_db:g} is asked for"
    if drop is not None and drop > bounds.max_accuracy_drop:
        most = 100 * bounds.max_accuracy_drop
        return f"accuracy drops {least}by {100 * drop:.2f} points, {most:.2f} are allowed"
    if same is not None and same < bounds.min_agreement:
        return f"agreement {100 * same:.2f} %, {100 * bounds.min_agreement:.2f} % is asked for"
    if bounds.metric_float is not None and fidelity.metric is not None:
        lost = bounds.metric_float - fidelity.metric
        if not lost <= bounds.max_metric_drop:
            return f"the metric drops by {lost:.4g}, {bounds.max_metric_drop:g} is allowed"
    return ""


def best(found: Sequence[CandidateReport], objective: Objective) -> CandidateReport | None:
    """The candidate to take: of those inside and near the smallest cost, the highest SQNR."""
    room = NEAR_TIME if objective.needs_latency else NEAR_SIZE
    fit = [one for one in found if not one.outside and one.fidelity is not None]
    if not fit:
        return None
    least = min(_cost(one, objective) for one in fit)
    near = [one for one in fit if _cost(one, objective) <= least * room]
    return min(near, key=lambda one: (-_sqnr(one), one.size_zstd, one.name))


def most_exact(found: Sequence[CandidateReport]) -> CandidateReport | None:
    """The candidate of the highest SQNR, inside the budget or not."""
    made = [one for one in found if one.fidelity is not None]
    return min(made, key=lambda one: (-_sqnr(one), one.name), default=None)


def with_front(found: Sequence[CandidateReport]) -> tuple[CandidateReport, ...]:
    """The same, with the Pareto front marked: SQNR up, compressed size and latency down."""
    return tuple(
        replace(one, is_front=one.fidelity is not None and not any(_beats(b, one) for b in found))
        for one in found
    )


def _beats(a: CandidateReport, b: CandidateReport) -> bool:
    mine, theirs = _figures(a), _figures(b)
    return (
        a.fidelity is not None
        and mine != theirs
        and all(x <= y for x, y in zip(mine, theirs, strict=True))
    )


def _figures(one: CandidateReport) -> tuple[float, float, float]:
    return -_sqnr(one), float(one.size_zstd), one.p50_us or float("inf")


def _sqnr(one: CandidateReport) -> float:
    return one.fidelity.sqnr_db if one.fidelity is not None else float("-inf")


def _cost(one: CandidateReport, objective: Objective) -> float:
    latency = one.p50_us or float("inf")
    if objective is Objective.LATENCY:
        return latency
    return float(one.size_zstd) * (latency if objective is Objective.BOTH else 1.0)
