"""A worker task: the publisher's own metric over what candidates said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import load_tensors
from edgefleet_converter.user_code import find_function, running


def score(*, metric: str, folder: str, count: int) -> dict[str, Json]:
    """`values`: what `function(outputs, y)` of a module says of each `outputs.<i>.npz`.

    The module is looked for in `folder` first. `outputs` are the model's, each [N, …]; `y` is the
    truth [N], or None.

    Raises:
        OperatorError: there is no such function, it fails, or it gives no finite number.
    """
    what, place = f"search.metric {metric}", Path(folder)
    function = find_function(metric, place, what="search.metric")
    found = load_tensors(Path("truth.npz"), "truth")
    truth = found[0] if found else None
    values: list[Json] = []
    for index in range(count):
        outputs = load_tensors(Path(f"outputs.{index}.npz"), "output")
        with running(what, place):
            value = float(function(outputs, truth))
        if not math.isfinite(value):
            raise OperatorError(
                f"{what} gave {value}",
                hint="it has to give a finite number for any model, also for a bad one",
            )
        values.append(float(np.float64(value)))
    return {"values": values}
