"""Running a sequence: whole calls in their order, each with the state that the one before gave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np

from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import StatePair
from edgefleet_converter.arrays import Array, Arrays
from edgefleet_processing import StepFailed


class Stepwise(Protocol):
    """What runs a call. `outputs` is known once it has."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs of one call."""
        ...


def run_sequence(
    opened: Callable[[], Stepwise],
    sent: Arrays,
    state: Sequence[StatePair],
    *,
    starts: Collection[int],
    hidden: bool = False,
) -> tuple[Arrays, Arrays]:
    """All that went in and all that came out, each [T, …] with the shape of one call behind T.

    Args:
        opened: loads what is run.
        sent: what clients send, in the order of the inputs that are no state, [T, …].
        state: what is carried on; it begins with zeros, or empty text [bundle-9].
        starts: the calls at which a sequence begins.
        hidden: whether it is loaded anew for each sequence.

    Raises:
        OperatorError: naming the call that cannot be run.
    """
    runner = opened()
    carried = {pair.input for pair in state}
    took: list[Arrays] = []
    gave: list[Arrays] = []
    kept: dict[str, Array] = {}
    for t in range(len(sent[0])):
        if t in starts or t == 0:
            kept = {s.name: beginning(s) for s in runner.inputs if s.name in carried}
            runner = opened() if hidden and t else runner
        fresh = iter(sent)
        call = tuple(
            kept[s.name] if s.name in carried else np.asarray(next(fresh)[t]) for s in runner.inputs
        )
        given = _infer(runner, call, t)
        named = {s.name: array for s, array in zip(runner.outputs, given, strict=True)}
        kept = {pair.input: named[pair.output] for pair in state}
        took.append(call)
        gave.append(given)
    return _stacked(took, "state"), _stacked(gave, "output")


def run_calls(
    opened: Callable[[], Stepwise], calls: Arrays, *, starts: Collection[int] = (0,)
) -> Arrays:
    """What comes out of whole calls, [T, …]; loaded anew at each of `starts`."""
    gave: list[Arrays] = []
    runner = opened()
    for t in range(len(calls[0])):
        runner = opened() if t in starts and t else runner
        gave.append(_infer(runner, tuple(np.asarray(array[t]) for array in calls), t))
    return _stacked(gave, "output")


def beginning(spec: TensorSpec) -> Array:
    """What a state is before the first call: zeros or empty text, a size that may vary being 1."""
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if spec.dtype == "string":
        return np.full(shape, "", object)
    return np.zeros(shape, spec.dtype)


def _infer(runner: Stepwise, call: Arrays, t: int) -> Arrays:
    try:
        return runner.infer(call)
    except StepFailed as error:
        raise OperatorError(f"held-out data: call {t}: {error}") from None


def _stacked(calls: list[Arrays], what: str) -> Arrays:
    try:
        return tuple(np.stack(column) for column in zip(*calls, strict=True))
    except ValueError:
        raise OperatorError(f"an {what} changes its shape from call to call") from None
