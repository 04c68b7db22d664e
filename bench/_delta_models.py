"""Pairs of model files, as updates make them: real optimiser steps on real data, in seconds.

A perceptron for the digits of scikit-learn learns most of them; then it is trained some steps more,
as after a month of new data. Written as ONNX, in float32 and in int8 with a scale for each output
channel. The two real releases come from PyPI.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
SIZES = (64, 1024, 1024, 512, 10)
CACHE = Path.home() / ".cache" / "edgefleet-bench"


@dataclass
class Network:
    """The weights and biases of each layer."""

    layers: list[tuple[Floats, Floats]]

    @classmethod
    def fresh(cls, seed: int) -> Network:
        rng = np.random.default_rng(seed)
        return cls(
            [
                ((rng.standard_normal((a, b)) * (2 / a) ** 0.5).astype("f4"), np.zeros(b, "f4"))
                for a, b in itertools.pairwise(SIZES)
            ]
        )

    def gradients(self, x: Floats, y: NDArray[np.int64]) -> list[tuple[Floats, Floats]]:
        """Of the mean cross entropy."""
        hidden = [x]
        for number, (weights, bias) in enumerate(self.layers):
            out = hidden[-1] @ weights + bias
            hidden.append(np.maximum(out, 0) if number + 1 < len(self.layers) else out)
        scores = np.exp(hidden[-1] - hidden[-1].max(1, keepdims=True))
        back = scores / scores.sum(1, keepdims=True)
        back[np.arange(len(y)), y] -= 1
        back /= len(y)
        found: list[tuple[Floats, Floats]] = []
        for (weights, _), given in zip(reversed(self.layers), reversed(hidden[:-1]), strict=True):
            found.insert(0, (given.T @ back, back.sum(0)))
            back = (back @ weights.T) * (given > 0)
        return found


Optimiser: TypeAlias = Callable[[Floats, Floats], Floats]


def adam(rate: float) -> Callable[[], Optimiser]:
    """An optimiser for each tensor (Kingma and Ba, 2015)."""

    def make() -> Optimiser:
        first: list[Floats] = []
        second: list[Floats] = []

        def step(value: Floats, gradient: Floats) -> Floats:
            if not first:
                first.append(np.zeros_like(value))
                second.append(np.zeros_like(value))
                count.append(0)
            count[0] += 1
            first[0] = 0.9 * first[0] + 0.1 * gradient
            second[0] = 0.999 * second[0] + 0.001 * gradient**2
            m, v = first[0] / (1 - 0.9 ** count[0]), second[0] / (1 - 0.999 ** count[0])
            return (value - rate * m / (np.sqrt(v) + 1e-8)).astype("f4")

        count: list[int] = []
        return step

    return make


def sgd(rate: float) -> Callable[[], Optimiser]:
    """Plain gradient descent."""
    return lambda: lambda value, gradient: (value - rate * gradient).astype("f4")


def train(
    start: Network, optimiser: Callable[[], Optimiser], steps: int, *, seed: int, only_last: bool
) -> Network:
    """Some steps on minibatches of 64."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = (data.data / 16).astype("f4"), data.target.astype("i8")
    rng = np.random.default_rng(seed)
    layers = list(start.layers)
    makers = [(optimiser(), optimiser()) for _ in layers]
    for _ in range(steps):
        batch = rng.choice(len(y), 64, replace=False)
        gradients = Network(layers).gradients(x[batch], y[batch])
        for number, (pair, gradient) in enumerate(zip(layers, gradients, strict=True)):
            if not only_last or number + 1 == len(layers):
                step_w, step_b = makers[number]
                layers[number] = (step_w(pair[0], gradient[0]), step_b(pair[1], gradient[1]))
    return Network(layers)


def float_onnx(network: Network) -> bytes:
    """The network in float32."""
    from onnx import helper, numpy_helper

    nodes, tensors, name = [], [], "x"
    for number, (weights, bias) in enumerate(network.layers):
        tensors += [
            numpy_helper.from_array(weights, f"w{number}"),
            numpy_helper.from_array(bias, f"b{number}"),
        ]
        nodes.append(helper.make_node("Gemm", [name, f"w{number}", f"b{number}"], [f"h{number}"]))
        name = f"h{number}"
        if number + 1 < len(network.layers):
            nodes.append(helper.make_node("Relu", [name], [f"r{number}"]))
            name = f"r{number}"
    return _model(nodes, tensors, name)


def int8_onnx(network: Network) -> bytes:
    """The network with int8 weights, symmetric, a scale for each output channel."""
    from onnx import helper, numpy_helper

    nodes, tensors, name = [], [], "x"
    for number, (weights, bias) in enumerate(network.layers):
        scale = (np.abs(weights).max(0) / 127).astype("f4")
        scale[scale == 0] = 1
        whole = np.clip(np.round(weights / scale), -127, 127).astype("i1")
        tensors += [
            numpy_helper.from_array(whole, f"w{number}"),
            numpy_helper.from_array(scale, f"s{number}"),
            numpy_helper.from_array(bias, f"b{number}"),
        ]
        made = f"d{number}"
        nodes += [
            helper.make_node("DequantizeLinear", [f"w{number}", f"s{number}"], [made], axis=1),
            helper.make_node("Gemm", [name, made, f"b{number}"], [f"h{number}"]),
        ]
        name = f"h{number}"
        if number + 1 < len(network.layers):
            nodes.append(helper.make_node("Relu", [name], [f"r{number}"]))
            name = f"r{number}"
    return _model(nodes, tensors, name)


def _model(nodes: list[object], tensors: list[object], out: str) -> bytes:
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])
        for name, size in (("x", SIZES[0]), (out, SIZES[-1]))
    ]
    graph = helper.make_graph(nodes, "digits", ends[:1], ends[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    raw: bytes = made.SerializeToString()
    return raw


def trained_pairs() -> Iterator[tuple[str, bytes, bytes]]:
    """A name, the old file and the new one."""
    old = train(Network.fresh(1), adam(1e-3), 200, seed=1, only_last=False)
    tuned = train(old, adam(1e-4), 100, seed=2, only_last=False)
    descended = train(old, sgd(1e-2), 100, seed=2, only_last=False)
    last = train(old, adam(1e-3), 100, seed=2, only_last=True)
    yield "fp32 fine-tune (Adam)", float_onnx(old), float_onnx(tuned)
    yield "int8 requantized (Adam)", int8_onnx(old), int8_onnx(tuned)
    yield "int8 requantized (SGD)", int8_onnx(old), int8_onnx(descended)
    yield "int8 last layer", int8_onnx(old), int8_onnx(last)


RELEASES = (
    ("silero-vad", "5.1.2", "6.2.0", "silero_vad/data/silero_vad.onnx"),
    ("pymicro-wakeword", "1.0.0", "2.5.0", "pymicro_wakeword/models/okay_nabu.tflite"),
)


def large_pair() -> tuple[bytes, bytes]:
    """64 MiB of float32, and the same after steps of about a thousandth: what applying costs."""
    rng = np.random.default_rng(1)
    old = [rng.standard_normal((2048, 2048), dtype="f4") for _ in range(4)]
    new = [part * (1 + rng.standard_normal(part.shape, dtype="f4") / 1000) for part in old]

    def written(parts: list[Floats]) -> bytes:
        return float_onnx(Network([(part, np.zeros(2048, "f4")) for part in parts]))

    return written(old), written(new)


def real_pairs() -> Iterator[tuple[str, bytes, bytes]]:
    """The same of releases that were made by others."""
    for package, old, new, path in RELEASES:
        files = [zipfile.ZipFile(_wheel(package, version)).read(path) for version in (old, new)]
        yield f"{Path(path).name} {old} to {new}", files[0], files[1]


def _wheel(package: str, version: str) -> Path:
    folder = CACHE / f"{package}-{version}"
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d"]
        subprocess.run([*command, str(folder), f"{package}=={version}"], check=True)
    return next(folder.glob("*.whl"))
