"""Tasks of the worker that load a finished file: what it answers, and what it costs."""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, load_tensors, save_tensors, write_npz
from edgefleet_converter.runners import OTHER_KERNELS, open_model, run_all

_PAGE = resource.getpagesize()
_WARM_UP = 20


def compare(*, format: str) -> dict[str, Json]:  # noqa: A002 - the manifest's word
    """`outputs.npz`: what `model` says to `inputs.npz` by each of the other kernels that run it.

    Its arrays are `<kernels>.<output>`; `kernels` names those that could.
    """
    inputs = load_tensors(Path("inputs.npz"), "input")
    found: dict[str, Array] = {}
    names: list[Json] = []
    for kernels in OTHER_KERNELS[Format(format)]:
        try:
            outputs = run_all(open_model(Path("model"), Format(format), kernels), inputs)
        except OperatorError:
            continue  # the default kernels run the file: that was the condition
        names.append(kernels.value)
        found |= {f"{kernels}.{index}": output for index, output in enumerate(outputs)}
    write_npz(Path("outputs.npz"), found)
    return {"kernels": names}


def run_model(*, format: str) -> dict[str, Json]:  # noqa: A002 - the manifest's word
    """`outputs.npz`: what `model` says to `inputs.npz`.

    Returns the specs of both sides, whether it is int8, and the quantum of its outputs.
    """
    runner = open_model(Path("model"), Format(format))
    outputs = run_all(runner, load_tensors(Path("inputs.npz"), "input"))
    save_tensors(Path("outputs.npz"), "output", outputs)
    return {
        "inputs": [codec.encode(spec) for spec in runner.inputs],
        "outputs": [codec.encode(spec) for spec in runner.outputs],
        "is_int8": runner.is_int8,
        "quantum": runner.quantum,
    }


def measure(*, format: str, runs: int) -> dict[str, Json]:  # noqa: A002 - the manifest's word
    """Load to first answer (ms), one inference at batch 1 (p50 and p95, µs), peak memory (MiB).

    Memory is the peak of this process over its size once the runtime is imported: what a model
    adds to a worker that has the runtime already.
    """
    kind = Format(format)
    examples = load_tensors(Path("inputs.npz"), "input")
    if kind is Format.TFLITE:
        import ai_edge_litert.interpreter  # noqa: F401 - imported now so that it is not measured
    else:
        import onnxruntime  # noqa: F401 - the same
    gc.collect()
    before = _resident_bytes()
    started = time.perf_counter_ns()
    runner = open_model(Path("model"), kind)
    size = runner.inputs[0].shape[0]
    rows = 1 if size == -1 else size
    batches = [
        tuple(np.resize(array[i : i + rows], (rows, *array.shape[1:])) for array in examples)
        for i in range(0, min(len(examples[0]), 32 * rows), rows)
    ]
    runner.infer(batches[0])
    load_ns = time.perf_counter_ns() - started
    times = []
    for index in range(_WARM_UP + runs):
        batch = batches[index % len(batches)]
        begun = time.perf_counter_ns()
        runner.infer(batch)
        times.append(time.perf_counter_ns() - begun)
    p50, p95 = np.percentile(np.asarray(times[_WARM_UP:]) / 1000, [50, 95])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "load_ms": load_ns / 1e6,
        "p50_us": float(p50),
        "p95_us": float(p95),
        "ram_mib": max(0.0, (peak - before) / 2**20),
    }


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE
