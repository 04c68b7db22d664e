"""`[search]` of a recipe: what the search may cost, and what it looks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Objective(StrEnum):
    """What is made small, among candidates that are inside the budget."""

    SIZE = "size"
    LATENCY = "latency"
    BOTH = "both"

    @property
    def needs_latency(self) -> bool:
        """Whether speed on this machine decides."""
        return self is not Objective.SIZE


@dataclass(frozen=True, slots=True)
class Search:
    """Whether int8 recipes are searched for, and under which bounds.

    `max_accuracy_drop` and `min_sqnr_db` are those of `[budget]` unless given here. `metric` is
    `module:function`, larger is better; `max_metric_drop` is in its own unit. `confirm_share` of
    the held-out examples are kept from the search and confirm its choice.
    """

    enabled: bool = False
    objective: Objective = Objective.SIZE
    max_accuracy_drop: float | None = None
    min_sqnr_db: float | None = None
    min_agreement: float = 0.0
    metric: str = ""
    max_metric_drop: float = 0.01
    confirm_share: float = 0.3
    time_limit_s: int = 600


def search_checks(search: Search, *, can_measure: bool) -> tuple[tuple[str, bool], ...]:
    """What must hold of a `[search]` section: sentences, and whether they do."""
    drop = search.max_accuracy_drop
    module, colon, function = search.metric.partition(":")
    is_named = all(part.isidentifier() for part in (*module.split("."), function))
    return (
        ("search.max_accuracy_drop: 0 to 1", drop is None or 0 <= drop <= 1),
        ("search.min_agreement: 0 to 1", 0 <= search.min_agreement <= 1),
        ("search.max_metric_drop: 0 or more", search.max_metric_drop >= 0),
        ("search.confirm_share: 0.1 to 0.9", 0.1 <= search.confirm_share <= 0.9),
        ("search.time_limit_s: 1 or more", search.time_limit_s >= 1),
        ("search.metric: module:function", not search.metric or (bool(colon) and is_named)),
        (
            f"search.objective: {search.objective} needs measure.enabled",
            can_measure or not search.objective.needs_latency,
        ),
    )
