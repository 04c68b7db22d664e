"""What a report tells of a variant beside its figures: sensitive layers, ranges that clip."""

from __future__ import annotations

import time
from pathlib import Path

from edgefleet_contract import codec
from edgefleet_converter import metrics
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.bench import CALIBRATION, HELD_OUT, Bench
from edgefleet_converter.float_models import FloatModel
from edgefleet_converter.opening import Opened
from edgefleet_converter.report import HistogramReport
from edgefleet_converter.search.candidate import Candidate
from edgefleet_converter.search.figures import SearchReport, Sensitivity, sensitivity_of
from edgefleet_converter.search.workshop import Workshop
from edgefleet_converter.targets import Target


def find_sensitivity(
    bench: Bench, opened: Opened, target: Target, searched: SearchReport | None
) -> Sensitivity | None:
    """What leaving each layer float32 wins, over the held-out examples.

    None where nobody asks, where a search found it already, and of what was not quantized here.
    Int8 is the plain one, of all operators with ranges from the smallest to the largest value.
    """
    base = _quantized(opened, target)
    known = searched is not None and searched.sensitivity is not None
    if base is None or known or not bench.recipe.report.sensitivity:
        return None
    assert base.answers is not None  # an int8 target has no state
    until = time.monotonic() + bench.recipe.report.time_limit_s
    sources = {kind: model.path for kind, model in opened.models.items()}
    shop = Workshop(bench, target.kind, sources, bench.scratch / HELD_OUT, bench.cache)
    graph = shop.graph(0.0)
    if graph is None:
        return None
    whole = Candidate()
    layers = {Candidate(floats=(layer,)): layer for layer in graph.layers}

    def on(done: int) -> bool:
        bench.progress(f"{target}: leaving layers float, {done} of {len(layers)}")
        return time.monotonic() < until

    found = shop.make([whole, *layers], on)
    if whole not in found or found[whole].error:
        return None
    values = {
        layers[one]: _sqnr_db(base.answers.arrays, made.outputs)
        for one, made in found.items()
        if one in layers and not made.error
    }
    sqnr = _sqnr_db(base.answers.arrays, found[whole].outputs)
    order = {layer: values[layer] for layer in graph.layers if layer in values}
    return sensitivity_of(whole.name, sqnr, order, len(found) == 1 + len(layers))


def find_clipping(
    bench: Bench, opened: Opened, target: Target, path: Path
) -> tuple[HistogramReport, ...] | None:
    """The tensors of an int8 file whose ranges cut off most, if the recipe wants them shown."""
    if _quantized(opened, target) is None or not bench.recipe.report.histograms:
        return None
    says = bench.task(
        f"clipping_{target.kind}",
        f"looking at the ranges of {target}",
        {"model": path, "calibration.npz": bench.scratch / CALIBRATION},
        {},
    )
    found = says["tensors"]
    assert isinstance(found, list)
    return tuple(codec.decode(HistogramReport, one, what="histogram") for one in found)


def _quantized(opened: Opened, target: Target) -> FloatModel | None:
    """The float model that a target was quantized from; None where it was not."""
    base = opened.models.get(target.kind)
    if not target.is_int8 or target.is_as_is or base is None or base.answers is None:
        return None
    return None if base.answers.is_int8 else base


def _sqnr_db(expected: Arrays, outputs: Arrays) -> float:
    return min(metrics.sqnr_db(a, b) for a, b in zip(expected, outputs, strict=True))
