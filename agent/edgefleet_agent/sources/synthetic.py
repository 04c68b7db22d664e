"""Numbers that nobody measured, of what the model takes: to try a device out, and for tests.

The same seed gives the same items. Open sizes are 1; fractions lie in [0, 1), whole numbers from 0
to 127, text is a few words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Final

import numpy as np

from edgefleet_agent.runtime.engine import Array
from edgefleet_agent.sources.options import SyntheticOptions
from edgefleet_agent.sources.plugin import Answer, Failure, Found, Item, Setup, waiting
from edgefleet_contract import codec
from edgefleet_contract.bundle import TensorSpec

IS_LIVE: Final = True
_WORDS: Final = ("one", "two", "three", "four")


def available() -> str:
    """It needs nothing."""
    return ""


def open(setup: Setup) -> SyntheticSource:  # noqa: A001  # the word of the Protocol
    """A source of items for the model that is served."""
    return SyntheticSource(
        codec.decode(SyntheticOptions, dict(setup.options), what=setup.name), setup
    )


class SyntheticSource:
    """See above."""

    def __init__(self, options: SyntheticOptions, setup: Setup) -> None:
        self._options, self._setup = options, setup

    def __iter__(self) -> Iterator[Found]:
        random = np.random.default_rng(self._options.seed)
        numbers = range(self._options.count) if self._options.count else count()
        inputs = self._setup.describe().inputs
        for number in numbers:
            due = time.monotonic() + self._setup.every_s
            tensors = {spec.name: make(spec, random) for spec in inputs}
            yield Item(tensors, {"number": str(number)}, key=str(number))
            yield from waiting(due)

    def settle(self, item: Item, outcome: Answer | Failure) -> None:
        """Nothing depends on it."""

    def close(self) -> None:
        """Nothing is open."""


def make(spec: TensorSpec, random: np.random.Generator) -> Array:
    """An array that a model takes."""
    shape = [1 if size == -1 else size for size in spec.shape]
    if spec.dtype == "string":
        return random.choice(np.array(_WORDS, object), shape)
    if spec.dtype == "bool":
        return random.random(shape) < 0.5
    if spec.dtype.startswith("float"):
        return random.random(shape).astype(spec.dtype)
    return random.integers(0, 128, shape).astype(spec.dtype)
