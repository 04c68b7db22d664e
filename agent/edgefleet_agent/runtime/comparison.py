"""How the outputs of two versions differ for the same request, and the sum of that over many.

Pure. Outputs are compared by name, or as the only one there is. What looks like class scores (the
last axis is longer than 1) agrees if the largest score stands at the same place in every row; text
agrees if it is the same; an output that the other has not, or in another shape, does not agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgefleet_agent.ports import ShadowReport
from edgefleet_agent.serving.latency import Latencies

if TYPE_CHECKING:
    from edgefleet_agent.runtime.engine import Array, Tensors


@dataclass(frozen=True, slots=True)
class Comparison:
    """One request. `agrees` is None where neither scores nor text were compared."""

    agrees: bool | None
    max_abs_diff: float
    total_abs_diff: float
    values: int


def compare(found: Tensors, served: Tensors) -> Comparison:
    """The candidate's outputs against those of the version that serves."""
    verdicts: list[bool] = []
    worst, total, values = 0.0, 0.0, 0
    for left, right in _pairs(found, served):
        if left is None or right is None or left.shape != right.shape:
            verdicts.append(False)
        elif "O" in (left.dtype.kind, right.dtype.kind):
            verdicts.append(bool(np.array_equal(left, right)))
        else:
            if left.ndim and left.shape[-1] > 1:
                verdicts.append(bool((left.argmax(axis=-1) == right.argmax(axis=-1)).all()))
            gaps = np.abs(left.astype(np.float64) - right.astype(np.float64))
            worst = max(worst, float(gaps.max(initial=0.0)))
            total, values = total + float(gaps.sum()), values + gaps.size
    return Comparison(all(verdicts) if verdicts else None, worst, total, values)


def _pairs(found: Tensors, served: Tensors) -> list[tuple[Array | None, Array | None]]:
    if len(found) == len(served) == 1:
        return [(*found.values(), *served.values())]  # type: ignore[list-item]  # one each
    return [(found.get(name), served.get(name)) for name in sorted(found.keys() | served.keys())]


@dataclass(slots=True)
class Tally:
    """All copies so far."""

    requests: int = 0
    errors: int = 0
    judged: int = 0
    agreements: int = 0
    max_abs_diff: float = 0.0
    total_abs_diff: float = 0.0
    values: int = 0
    serving: Latencies = field(default_factory=Latencies)
    candidate: Latencies = field(default_factory=Latencies)

    def count(self, comparison: Comparison | None, *, serving_us: int, candidate_us: int) -> None:
        """Count one; None where the candidate gave no prediction."""
        self.requests += 1
        self.serving.add(serving_us)
        if comparison is None:
            self.errors += 1
            return
        self.candidate.add(candidate_us)
        self.judged += comparison.agrees is not None
        self.agreements += bool(comparison.agrees)
        self.max_abs_diff = max(self.max_abs_diff, comparison.max_abs_diff)
        self.total_abs_diff += comparison.total_abs_diff
        self.values += comparison.values

    def report(self, cpu_s: float) -> ShadowReport:
        """What the child knows of a `ShadowReport`."""
        return ShadowReport(
            requests=self.requests,
            errors=self.errors,
            judged=self.judged,
            agreements=self.agreements,
            max_abs_diff=self.max_abs_diff,
            mean_abs_diff=self.total_abs_diff / self.values if self.values else 0.0,
            serving_p50_us=self.serving.quantile(0.5),
            serving_p95_us=self.serving.quantile(0.95),
            candidate_p50_us=self.candidate.quantile(0.5),
            candidate_p95_us=self.candidate.quantile(0.95),
            cpu_s=cpu_s,
        )
