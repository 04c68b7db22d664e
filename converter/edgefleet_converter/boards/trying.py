"""Tasks of the worker: one candidate measured on this machine; many made ready for a board."""

from __future__ import annotations

import gc
import resource
import time
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract import codec
from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json
from edgefleet_converter.arrays import Array, load_tensors, write_npz
from edgefleet_converter.recheck import Job, calls_in, difference, opened
from edgefleet_converter.runners import open_model
from edgefleet_converter.search.timing import as_taken
from edgefleet_converter.trial import calls_of, import_runtime

_WARM_UP: Final = 3
_LEAST: Final = 20
_PATIENCE: Final = 3
_ROWS: Final = 4


def measure(*, job: Json, runs: int, seconds: float) -> dict[str, Json]:
    """What a candidate costs here, as a board's trial measures it: one thread, one vector a call.

    Inferences that the kernel interrupted for another process are left out while there are others.
    """
    asked = codec.decode(Job, job, what="job")
    variant = asked.variant
    files = {path: Path(local) for path, local in asked.files.items()}
    taken = load_tensors(files[variant.golden], "input")
    given = load_tensors(files[variant.golden], "output")
    calls = list(calls_in(variant, taken, given))
    first = tuple(a[:1] for a in calls[0][0]) if _is_free(asked) else calls[0][0]
    import_runtime(variant.format)
    gc.collect()
    empty, mapped, started = _kib("VmRSS"), _kib("RssFile"), time.perf_counter()
    infer = opened(variant, files)
    open_ms = (time.perf_counter() - started) * 1e3
    infer(first)
    load_ms = (time.perf_counter() - started) * 1e3
    worst = 0.0
    for inputs, expected in calls:
        worst = max(worst, *map(difference, infer(inputs), expected))
    for _ in range(_WARM_UP):
        infer(first)
    quiet: list[float] = []
    disturbed: list[float] = []
    end = time.perf_counter() + seconds
    while len(quiet) + len(disturbed) < runs and (
        time.perf_counter() < end or (len(quiet) < _LEAST and len(disturbed) < _LEAST * _PATIENCE)
    ):
        before, begun = _interruptions(), time.perf_counter()
        infer(first)
        took = (time.perf_counter() - begun) * 1e6
        (quiet if _interruptions() == before else disturbed).append(took)
    counted = quiet if len(quiet) >= min(_LEAST, runs) else quiet + disturbed
    p50, p95, p99 = np.percentile(np.asarray(counted), [50, 95, 99])
    # What it mapped of the runtime's files meanwhile is shared, and no memory of the model.
    taken_kib = _kib("VmHWM") - empty - (_kib("RssFile") - mapped)
    return {
        "open_ms": open_ms,
        "load_ms": load_ms,
        "p50_us": float(p50),
        "p95_us": float(p95),
        "p99_us": float(p99),
        "ram_mib": max(0, taken_kib) / 1024,
        "runs": len(counted),
        "disturbed": len(quiet) + len(disturbed) - len(counted),
        "vectors": len(taken[0]),
        "max_abs_err": worst if np.isfinite(worst) else None,
    }


def make_ready(*, format: str, count: int) -> dict[str, Json]:  # noqa: A002 - the manifest's word
    """`golden.<i>.npz`: a few of `inputs.npz` as each `model.<i>` takes them, and what it answers
    here; `models` has what each takes and gives.
    """
    examples = load_tensors(Path("inputs.npz"), "input")
    told: list[Json] = []
    for index in range(count):
        model = open_model(Path(f"model.{index}"), Format(format))
        size = model.inputs[0].shape[0] if model.inputs[0].shape else -1
        rows = size if size > 0 else min(_ROWS, len(examples[0]))
        call = as_taken(model, calls_of(examples, rows)[:1])[0]
        arrays: dict[str, Array] = {f"input.{i}": array for i, array in enumerate(call)}
        arrays |= {f"output.{i}": array for i, array in enumerate(model.infer(call))}
        write_npz(Path(f"golden.{index}.npz"), arrays)
        told.append(
            {
                "inputs": [codec.encode(spec) for spec in model.inputs],
                "outputs": [codec.encode(spec) for spec in model.outputs],
            }
        )
    return {"models": told}


def _is_free(asked: Job) -> bool:
    """Whether one vector may be asked alone."""
    specs = (*asked.variant.inputs, *asked.variant.outputs)
    return not asked.variant.is_stateful and all(spec.shape[:1] == (-1,) for spec in specs)


def _interruptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _kib(field: str) -> int:
    """VmRSS, VmHWM or RssFile of this process."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0
