"""Part one of `bench prune`: single weights become zero, and the model becomes int8."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bench._prune_channels import prune
from bench._prune_shop import Figures, Shop, update_size
from edgefleet_converter.arrays import Arrays
from edgefleet_converter.bench import Bench
from edgefleet_converter.passes.prune_onnx import (
    all_weights,
    hard_threshold,
    lambda_for,
    weight_names,
)
from edgefleet_converter.passes.prune_onnx import prune as prune_weights
from edgefleet_converter.pruning import prune_model
from edgefleet_converter.recipe_prune import Prune

SHARES = (0.0, 0.5, 0.7, 0.8, 0.9)
BUDGET = 0.01
QUICK = 1
"""The level of zstd for float files, whose size under it no table has."""


@dataclass
class Row:
    """One lambda. `float_` is the pruned model before int8, `uniform` one of the same share of
    zeros in each layer, as float. `update` is what travels to whoever has the row before."""

    name: str
    lambda_: float
    norm0: int
    weights: int
    float_: Figures
    int8: Figures
    update: int | None = None
    uniform: Figures | None = None
    layers: dict[str, float] = field(default_factory=dict)
    """The share of each layer that is not zero."""


def sweep_lambda(
    folder: Path,
    toolchain: Path,
    scratch: Path,
    *,
    shares: Sequence[float] = SHARES,
    with_budget: bool = True,
) -> list[Row]:
    """A row for each share of zeros, and one for the lambda that a budget of a point allows.

    Each is told as soon as it is made; times are taken at the end.
    """
    shop = Shop(folder, scratch / "lambda")
    exported = folder / "whole.onnx"
    if not exported.exists():  # it is kept beside the weights
        prune(folder, toolchain, scratch / "exported", ratio=0.5, finetune="")
        shutil.copy(scratch / "exported" / "whole.onnx", exported)
    base = shop.opened(exported)
    whole = scratch / "whole.onnx"
    shutil.copy(base, whole)
    shop.figures(whole, QUICK)
    model = onnx.load(whole)
    weights = all_weights(model)
    rows: list[Row] = []
    files: list[Path] = []
    for share in (0.0, *(share for share in shares if share)):
        name = f"{round(100 * share)} %"
        lambda_ = lambda_for(weights, share)
        tried = prune_weights(model, lambda_)
        path = scratch / f"pruned-{share}.onnx"
        onnx.save(tried.model, path)
        made = shop.int8(path, f"pruned-{share}")
        rows.append(
            Row(
                name,
                lambda_,
                tried.norm0,
                tried.weights,
                shop.figures(path, QUICK),
                shop.figures(made),
                update_size(files[-1], made) if files else None,
                _uniform(shop, whole, share, scratch) if share else None,
                {name: left / size for name, (left, size) in tried.layers.items()},
            )
        )
        files.append(made)
        print(rows[-1], file=sys.stderr, flush=True)
    if with_budget:
        rows.append(_inside_budget(shop, whole, (shop.answers(whole),)))
        files.append(shop.bench.scratch / "budget.int8.onnx")
    for row, p50 in zip(rows, shop.times([whole, *files])[1:], strict=True):
        row.int8 = replace(row.int8, p50_us=p50)
    return rows


def _inside_budget(shop: Shop, whole: Path, before: Arrays) -> Row:
    recipe = replace(shop.bench.recipe, prune=Prune(max_accuracy_drop=BUDGET))
    bench = Bench(recipe, shop.bench.scratch, shop.bench.progress)
    found = prune_model(bench, whole, before, shop.truth)
    path = shop.bench.scratch / "budget.onnx"
    shutil.copy(found.path, path)
    told = found.told
    return Row(
        "budget of 1 point",
        told.lambda_,
        told.norm0,
        told.weights,
        shop.figures(path, QUICK),
        shop.figures(shop.int8(path, "budget")),
    )


def _uniform(shop: Shop, whole: Path, share: float, scratch: Path) -> Figures:
    """The same share of zeros, taken from each layer by a lambda of its own."""
    model = onnx.load(whole)
    names = set(weight_names(model))
    for tensor in model.graph.initializer:
        if tensor.name in names:
            w = np.asarray(numpy_helper.to_array(tensor), np.float32)
            pruned = hard_threshold(w, lambda_for(w.ravel(), share))
            tensor.CopyFrom(numpy_helper.from_array(pruned, tensor.name))
    path = scratch / "uniform.onnx"
    onnx.save(model, path)
    return shop.figures(path, QUICK)
