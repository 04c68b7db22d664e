"""What a recipe says of its report: what is looked at beside what a build needs."""

from __future__ import annotations

from dataclasses import dataclass

from edgefleet_contract.errors import Malformed


@dataclass(frozen=True, slots=True)
class ReportWish:
    """What the report has beside the figures of the variants; each part costs time.

    `time_limit_s`: after so many seconds no new layer and no new point of a sweep is begun.
    """

    anchors: bool = False
    sensitivity: bool = False
    histograms: bool = False
    lambda_sweep: bool = False
    time_limit_s: int = 300

    def __post_init__(self) -> None:
        if self.time_limit_s < 1:
            raise Malformed("time_limit_s: 1 or more")
