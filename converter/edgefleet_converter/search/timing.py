"""A worker task: the latency of several models, measured in turns so that noise hits all alike."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_converter.arrays import Arrays, load_tensors
from edgefleet_converter.runners import Runner, open_model
from edgefleet_converter.trial import calls_of

_ROUNDS: Final = 31
_TURN_S: Final = 0.02  # of one model, before the next one's turn


def time_models(*, format: str, count: int, seconds: float) -> dict[str, Json]:  # noqa: A002
    """`p50_us`: one inference at batch 1 of each `model.<i>`, one thread.

    The median of the calmer half of the rounds, of a round the median: what else the machine does
    makes a round longer, never shorter. At least three rounds, then until `seconds`.
    """
    examples = load_tensors(Path("inputs.npz"), "input")
    runners = [open_model(Path(f"model.{index}"), Format(format)) for index in range(count)]
    size = runners[0].inputs[0].shape[0] if runners[0].inputs[0].shape else -1
    calls = [as_taken(runner, calls_of(examples, max(size, 1))) for runner in runners]
    for runner, mine in zip(runners, calls, strict=True):
        runner.infer(mine[0])
    medians: list[list[float]] = [[] for _ in runners]
    started = time.perf_counter()
    for turn in range(_ROUNDS):
        if turn >= 3 and time.perf_counter() - started > seconds:
            break
        for runner, mine, found in zip(runners, calls, medians, strict=True):
            times: list[int] = []
            until = time.perf_counter_ns() + int(_TURN_S * 1e9)
            while len(times) < 3 or time.perf_counter_ns() < until:
                call = mine[len(times) % len(mine)]
                begun = time.perf_counter_ns()
                runner.infer(call)
                times.append(time.perf_counter_ns() - begun)
            found.append(float(np.median(times)) / 1000)
    return {"p50_us": [float(np.percentile(found, 25)) for found in medians]}


def as_taken(runner: Runner, calls: list[Arrays]) -> list[Arrays]:
    """Calls of the types that the model takes; what the numbers are does not matter here."""
    return [
        tuple(
            np.asarray(array, spec.dtype) for array, spec in zip(call, runner.inputs, strict=True)
        )
        for call in calls
    ]
