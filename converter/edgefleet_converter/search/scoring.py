"""A worker task: the publisher's own metric over what candidates said."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import numpy as np

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import load_tensors


def score(*, metric: str, folder: str, count: int) -> dict[str, Json]:
    """`values`: what `function(outputs, y)` of a module says of each `outputs.<i>.npz`.

    The module is looked for in `folder` first. `outputs` are the model's, each [N, …]; `y` is the
    truth [N], or None.

    Raises:
        OperatorError: there is no such function, or it gives no finite number.
    """
    sys.path.insert(0, folder)
    module, _, name = metric.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OperatorError(
            f"search.metric {metric}: {error}", hint="a module in the recipe's folder"
        ) from None
    found = load_tensors(Path("truth.npz"), "truth")
    truth = found[0] if found else None
    values: list[Json] = []
    for index in range(count):
        value = float(function(load_tensors(Path(f"outputs.{index}.npz"), "output"), truth))
        if not math.isfinite(value):
            raise OperatorError(f"search.metric {metric}: gave {value}")
        values.append(float(np.float64(value)))
    return {"values": values}
