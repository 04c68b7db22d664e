"""What flows through a float ONNX graph: ranges of its tensors, peaks of channels; seen once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from edgefleet_converter.arrays import Array, Arrays
from edgefleet_converter.search.candidate import Ranges

Floats = NDArray[np.float64]

SHARES: Final = {Ranges.MINMAX: 0.0, Ranges.P99_999: 1e-5, Ranges.P99_99: 1e-4}
"""The share of values that is cut off at each end."""

_BATCH: Final = 32


def observe(model: ModelProto, names: Sequence[str], arrays: Arrays) -> Iterator[dict[str, Array]]:
    """The tensors of these names for all examples, batch after batch, by plain kernels."""
    watched = ModelProto()
    watched.CopyFrom(model)
    given = {value.name for value in watched.graph.output}
    fed = {value.name for value in watched.graph.input}
    for name in dict.fromkeys(names):
        if name not in given | fed:
            watched.graph.output.append(ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = [value.name for value in session.get_inputs()]
    wanted = [name for name in dict.fromkeys(names) if name not in fed]
    for batch in batches(model, arrays):
        feeds = dict(zip(inputs, batch, strict=True))
        found = dict(zip(wanted, session.run(wanted, feeds), strict=True)) if wanted else {}
        yield {**{name: feeds[name] for name in names if name in feeds}, **found}


def batches(model: ModelProto, arrays: Arrays) -> Iterator[Arrays]:
    """Examples in batches that the model takes; a rest that does not fill one is left out."""
    weights = {tensor.name for tensor in model.graph.initializer}
    first = next(value for value in model.graph.input if value.name not in weights)
    dims = first.type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims and dims[0].HasField("dim_value") else 0
    step = fixed or _BATCH
    stop = len(arrays[0]) - len(arrays[0]) % step if fixed else len(arrays[0])
    for start in range(0, stop, step):
        yield tuple(array[start : min(start + step, stop)] for array in arrays)


def channel_peaks(model: ModelProto, axes: Mapping[str, int], arrays: Arrays) -> dict[str, Floats]:
    """The largest magnitude of each channel; `axes` says where the channels of a tensor are."""
    peaks: dict[str, Floats] = {}
    for seen in observe(model, list(axes), arrays):
        for name, axis in axes.items():
            moved = np.moveaxis(np.abs(seen[name].astype(np.float64)), axis, 0)
            peak = moved.reshape(len(moved), -1).max(axis=1)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks


def all_ranges(
    model: ModelProto, names: Sequence[str], arrays: Arrays
) -> dict[Ranges, dict[str, tuple[float, float]]]:
    """Lowest and highest value of each float32 tensor, by each way to say where a range ends.

    Exact: the tails of every tensor are kept, not a histogram.
    """
    tails: dict[str, _Tails] = {}
    parts = max(1, sum(1 for _ in batches(model, arrays)))
    for seen in observe(model, names, arrays):
        for name, array in seen.items():
            if array.dtype != np.float32 or not array.size:
                continue
            if name not in tails:
                tails[name] = _Tails(math.ceil(max(SHARES.values()) * array.size * parts) + 1)
            tails[name].add(array)
    return {
        ranges: {name: tail.cut(share) for name, tail in tails.items()}
        for ranges, share in SHARES.items()
    }


class _Tails:
    """The smallest and the largest values of a stream."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._count = 0
        self._low: NDArray[Any] = np.empty(0, np.float32)
        self._high: NDArray[Any] = np.empty(0, np.float32)

    def add(self, array: Array) -> None:
        values = array.reshape(-1)
        self._count += values.size
        self._low = self._ends(np.concatenate([self._low, values]))
        self._high = -self._ends(-np.concatenate([self._high, values]))

    def _ends(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.size > self._keep:
            values = np.partition(values, self._keep - 1)[: self._keep]
        return np.sort(values)

    def cut(self, share: float) -> tuple[float, float]:
        """Lowest and highest once this share of the values is cut off at each end."""
        place = min(int(share * self._count), self._keep - 1, len(self._low) - 1)
        return float(self._low[place]), float(self._high[place])
