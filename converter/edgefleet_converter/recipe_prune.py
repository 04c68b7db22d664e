"""What a recipe says of pruning: weights to zero, or channels to cut out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgefleet_contract.errors import Malformed


@dataclass(frozen=True, slots=True)
class Structured:
    """Channels to cut out of a PyTorch model: a share of them, in steps, trained after each.

    `finetune` is `module:function`, called with the model after each step. What a layer keeps is a
    multiple of `round_to`: runtimes work on eight channels at a time, and widths that are none make
    them fall back to slow kernels. With `max_accuracy_drop` (a share), as many of the steps are
    taken as cost the float model no more.
    """

    ratio: float = 0.5
    steps: int = 3
    round_to: int = 8
    finetune: str = ""
    max_accuracy_drop: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise Malformed("ratio: above 0 and below 1")
        if not 1 <= self.steps <= 100:
            raise Malformed("steps: 1 to 100")
        if not 1 <= self.round_to <= 64:
            raise Malformed("round_to: 1 to 64")
        if self.max_accuracy_drop is not None and not 0 <= self.max_accuracy_drop <= 1:
            raise Malformed("max_accuracy_drop: 0 to 1")
        module, colon, function = self.finetune.partition(":")
        if self.finetune and not (module and colon and function.isidentifier()):
            raise Malformed(f"finetune: {self.finetune[:80]!r} is not module:function")


@dataclass(frozen=True, slots=True)
class Prune:
    """How small a weight becomes zero: where `w^2 < 2 lambda`; or the accuracy that it may cost.

    `max_accuracy_drop` is a share, against the model that came in: the largest lambda inside it is
    looked for.
    """

    lambda_: float | None = None
    max_accuracy_drop: float | None = None
    structured: Structured | None = None

    def __post_init__(self) -> None:
        if self.lambda_ is not None and self.max_accuracy_drop is not None:
            raise Malformed("lambda or max_accuracy_drop, not both")
        if self.lambda_ is not None and not (0 <= self.lambda_ < math.inf):
            raise Malformed("lambda: 0 or more")
        if self.max_accuracy_drop is not None and not 0 <= self.max_accuracy_drop <= 1:
            raise Malformed("max_accuracy_drop: 0 to 1")

    @property
    def has_threshold(self) -> bool:
        """Whether single weights become zero."""
        return self.lambda_ is not None or self.max_accuracy_drop is not None
