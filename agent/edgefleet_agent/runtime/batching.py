"""Several requests in one run of the model: joined along the batch axis, run once, split again.

Pure. Only calls whose rows do not touch each other may be joined: the batch axis of every input
and output is free, and the golden vectors gave the same answers one by one and all at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.runtime.golden import Golden
from edgefleet_agent.serving.question import Question
from edgefleet_contract.bundle import TensorSpec, Variant


def why_not_joined(variant: Variant, golden: Golden) -> str:
    """Why the requests of a model are never run together; empty where they may be."""
    if variant.program is not None and variant.program.is_stateful:
        return "it is stateful"
    for spec in (*variant.inputs, *variant.outputs):
        if spec.shape[:1] != (-1,):
            return f"the batch axis of {spec.name!r} is not free"
    if golden.vectors < 2 or len(golden.calls) > 1:
        return "its golden vectors do not show that rows leave each other alone"
    return ""


def groups(questions: Sequence[Question]) -> list[list[int]]:
    """Which may be run together, by their places; those that may not are in none."""
    found: dict[object, list[int]] = {}
    for i, question in enumerate(questions):
        if len(question.calls) == 1 and rows(question.calls[0]):
            sizes = tuple((name, a.shape[1:]) for name, a in sorted(question.calls[0].items()))
            found.setdefault(sizes, []).append(i)
    return [places for places in found.values() if len(places) > 1]


def rows(feeds: Tensors) -> int:
    """How many rows every input has; 0 where they differ."""
    counts = {array.shape[0] for array in feeds.values()}
    return counts.pop() if len(counts) == 1 else 0


def join(calls: Sequence[Tensors]) -> Tensors:
    """One call of all rows, in their order."""
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def split(
    results: Tensors, counts: Sequence[int], outputs: tuple[TensorSpec, ...]
) -> list[Tensors] | None:
    """The results of each call; None where an output has not a row for each.

    Law: `split(join(calls), counts)` is `calls`, for calls of `counts` rows.
    """
    found = [results[spec.name] for spec in outputs]
    if any(array.shape[:1] != (sum(counts),) for array in found):
        return None
    ends = np.cumsum(counts).tolist()
    return [
        {spec.name: array[end - n : end] for spec, array in zip(outputs, found, strict=True)}
        for n, end in zip(counts, ends, strict=True)
    ]
