"""Tasks of the worker that load a finished file: what it answers, and what it costs."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format, TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, Arrays, load_tensors, save_tensors, write_npz
from edgefleet_converter.borders import Bare, Bordered, borders_json
from edgefleet_converter.runners import OTHER_KERNELS, Kernels, open_model, run_all

_PAGE = resource.getpagesize()
_WARM_UP = 20


def compare(
    *,
    format: str,  # noqa: A002 - the manifest's word
    with_default: bool = False,
) -> dict[str, Json]:
    """`outputs.npz`: what `model` says to `inputs.npz` by each of the other kernels that run it.

    Its arrays are `<kernels>.<output>`; `kernels` names those that could.
    """
    inputs = load_tensors(Path("inputs.npz"), "input")
    found: dict[str, Array] = {}
    names: list[Json] = []
    first = (Kernels.DEFAULT,) if with_default else ()
    for kernels in (*first, *OTHER_KERNELS[Format(format)]):
        try:
            outputs = run_all(open_model(Path("model"), Format(format), kernels), inputs, kernels)
        except OperatorError:
            continue  # the default kernels run the file: that was the condition
        names.append(kernels.value)
        found |= {f"{kernels}.{index}": output for index, output in enumerate(outputs)}
    write_npz(Path("outputs.npz"), found)
    return {"kernels": names}


def describe(*, format: str) -> dict[str, Json]:  # noqa: A002 - the manifest's word
    """The tensors of `model`, as `run_model` returns them, without running it."""
    return _said(open_model(Path("model"), Format(format)))


def run_model(
    *,
    format: str,  # noqa: A002 - the manifest's word
    want_numbers: bool = False,
) -> dict[str, Json]:
    """`outputs.npz`: what `model` says to `inputs.npz`.

    Where its integers stand for numbers, float32 goes in through its border, and numbers come out
    then or if they are wanted. Returns the specs of both sides, whether it is int8, the quantum of
    its outputs, and the borders that were crossed.
    """
    inputs = load_tensors(Path("inputs.npz"), "input")
    model = open_model(Path("model"), Format(format))
    dtypes = [array.dtype.name for array in inputs]
    runner = Bordered(model, dtypes, want_numbers=want_numbers)
    save_tensors(Path("outputs.npz"), "output", run_all(runner, inputs))
    return _said(runner)


def _said(runner: Bare) -> dict[str, Json]:
    return {
        "inputs": [codec.encode(spec) for spec in runner.inputs],
        "outputs": [codec.encode(spec) for spec in runner.outputs],
        "is_int8": runner.is_int8,
        "quantum": runner.quantum,
        "input_borders": borders_json(runner.input_borders),
        "output_borders": borders_json(runner.output_borders),
    }


def measure(*, format: str, runs: int) -> dict[str, Json]:  # noqa: A002 - the manifest's word
    """Load to first answer (ms), one inference at batch 1 (p50 and p95, µs), peak memory (MiB).

    Memory is the peak of this process over its size once the runtime is imported: what a model
    adds to a worker that has the runtime already.
    """
    kind = Format(format)
    examples = load_tensors(Path("inputs.npz"), "input")
    import_runtime(kind)

    def opened() -> Bare:
        return open_model(Path("model"), kind)

    return timed(opened, examples, runs)


def import_runtime(kind: Format) -> None:
    """Import it now, so that it is not measured."""
    if kind is Format.TFLITE:
        import ai_edge_litert.interpreter  # noqa: F401 - for its effect
    else:
        import onnxruntime  # noqa: F401 - for its effect


class Timed(Protocol):
    """What is timed."""

    inputs: tuple[TensorSpec, ...]

    def infer(self, inputs: Arrays) -> Arrays:
        """The outputs for one call."""
        ...


def timed(
    opened: Callable[[], Timed], examples: Arrays, runs: int, *, whole_calls: bool = False
) -> dict[str, Json]:
    """What opening a model and running it costs; its runtime is imported already.

    Args:
        opened: loads it.
        examples: what it is run on, each [N, …].
        runs: how many inferences are timed.
        whole_calls: each example is a call, and not a row of one.
    """
    gc.collect()
    before = _resident_bytes()
    started = time.perf_counter_ns()
    runner = opened()
    size = runner.inputs[0].shape[0] if runner.inputs[0].shape else -1
    batches = calls_of(examples, 0 if whole_calls else max(size, 1))
    runner.infer(batches[0])
    load_ns = time.perf_counter_ns() - started
    times = []
    for index in range(_WARM_UP + runs):
        batch = batches[index % len(batches)]
        begun = time.perf_counter_ns()
        runner.infer(batch)
        times.append(time.perf_counter_ns() - begun)
    p50, p95 = np.percentile(np.asarray(times[_WARM_UP:]) / 1000, [50, 95])
    peak = _peak_bytes()
    return {
        "load_ms": load_ns / 1e6,
        "p50_us": float(p50),
        "p95_us": float(p95),
        "ram_mib": max(0.0, (peak - before) / 2**20),
    }


def calls_of(examples: Arrays, rows: int) -> list[Arrays]:
    """The first 32 calls of so many rows, or of one example each."""
    if not rows:
        return [tuple(array[i] for array in examples) for i in range(min(len(examples[0]), 32))]
    return [
        tuple(np.resize(array[i : i + rows], (rows, *array.shape[1:])) for array in examples)
        for i in range(0, min(len(examples[0]), 32 * rows), rows)
    ]


def _peak_bytes() -> int:
    """The most that was resident. Not ru_maxrss: that one survives exec, and then it is the most
    that whoever started this process had."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
