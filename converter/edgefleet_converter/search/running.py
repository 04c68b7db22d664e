"""A search that runs: candidates are made and judged, and what was found of each is kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from backports import zstd

from edgefleet_converter.arrays import Arrays
from edgefleet_converter.search import ranking
from edgefleet_converter.search.barred import why_barred
from edgefleet_converter.search.candidate import Candidate
from edgefleet_converter.search.fidelity import Examples, fidelity_of
from edgefleet_converter.search.figures import CandidateReport, Fidelity
from edgefleet_converter.search.workshop import Made, Workshop
from edgefleet_converter.targets import Target
from edgefleet_converter.variants import RUNTIMES

ZSTD_LEVEL: Final = 19


@dataclass(slots=True)
class Hunt:
    """A search that runs. What was made is in `made`, in the order in which it was made.

    `barred` may not be taken, however good they are.
    """

    shop: Workshop
    target: Target
    seen: Examples
    bounds: ranking.Bounds
    until: float
    is_batch_fixed: bool
    made: dict[Candidate, Made] = field(default_factory=dict)
    told: dict[Candidate, CandidateReport] = field(default_factory=dict)
    barred: set[Candidate] = field(default_factory=set)
    is_complete: bool = True

    def try_all(self, wanted: Sequence[Candidate]) -> None:
        """Make and judge what was not made before, until the time is up."""
        new = [one for one in wanted if one not in self.made]
        begun = time.monotonic()

        def on(done: int) -> bool:
            now = time.monotonic()
            left = f", about {(now - begun) / done * (len(new) - done):.0f} s left" if done else ""
            self.shop.bench.progress(f"searching {self.target}: {done} of {len(new)}{left}")
            return now < self.until

        found = self.shop.make(new, on)
        self.is_complete &= len(found) == len(new)
        found = {one: found[one] for one in new if one in found}
        fit = [one for one, made in found.items() if not made.error]
        scores = self._scores([found[one].outputs for one in fit])
        fidelity = {
            one: fidelity_of(self.seen, found[one].outputs, score)
            for one, score in zip(fit, scores, strict=True)
        }
        for one, made in found.items():
            self.made[one] = made
            self.told[one] = self._report(one, made, fidelity.get(one))

    def is_inside(self, one: Candidate) -> bool:
        """Whether a candidate is inside the budget; made now if it was not."""
        if one not in self.told and time.monotonic() >= self.until:
            self.is_complete = False
            return False
        self.try_all([one])
        return one in self.told and not self.told[one].outside

    def _barred(self, made: Made) -> str:
        kind, classes = self.shop.kind, self.shop.bench.recipe.hardware.wanted
        fixed = self.is_batch_fixed
        return why_barred(kind, made.needs, RUNTIMES[kind], classes, is_batch_fixed=fixed)

    def _scores(self, outputs: Sequence[Arrays]) -> Sequence[float | None]:
        if not self.shop.bench.recipe.search.metric or not outputs:
            return [None] * len(outputs)
        return self.shop.scores(outputs, self.seen.scored)

    def _report(self, one: Candidate, made: Made, fidelity: Fidelity | None) -> CandidateReport:
        why = made.error if fidelity is None else ranking.outside(fidelity, self.bounds)
        if one.is_dynamic and not made.error and (barred := self._barred(made)):
            self.barred.add(one)
            why = barred
        size = len(zstd.compress(made.model, level=ZSTD_LEVEL)) if made.model else 0
        return CandidateReport(one.name, len(made.model), size, fidelity, why)
