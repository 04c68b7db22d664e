"""Models for the figures of int8, really trained on real digits, without a training framework.

`uneven` takes a trained network and rescales its channels by chance, so that it computes the same
with ranges that 8 bits with one scale cannot hold: what happens to networks with batch
normalization folded in, made large enough to be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """A float model in any format that we read, with the data to quantize and to judge it.

    `truth`: the class of each held-out example, if anybody knows. `keras`: the model is HDF5 of
    Keras, which TensorFlow's own converter takes. `published` are the publisher's scores;
    `labelled` a few examples with classes beside those held out. `key` stands for the
    model where its file has other bytes each time, as skops' have.
    """

    name: str
    model: bytes
    calibration: Floats
    held_out: Floats
    truth: NDArray[np.int64] | None
    formats: tuple[str, ...] = ("onnx", "tflite")
    keras: bool = False
    published: str = ""
    key: str = ""
    labelled: tuple[Floats, NDArray[np.int64]] | None = None


def digits_images() -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Training and held-out images [N, 1, 8, 8] with their classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    images = (x / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    a, b, c, d = train_test_split(images, y.astype(np.int64), test_size=0.4, random_state=0)
    return a, c, b, d


def columns(x: Floats) -> Floats:
    """3 by 3 patches with zeros around: [N, C, H, W] -> [N, H, W, 9 C]."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = [padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return np.stack(parts, axis=2).reshape(n, c * 9, h, w).transpose(0, 2, 3, 1)


def train_cnn(*, epochs: int = 8, seed: int = 0) -> dict[str, Floats]:
    """Weights of Conv 16, Relu, Conv 32, Relu, mean pool 2, dense 10; by Adam."""
    x, y, _, _ = digits_images()
    rng = np.random.default_rng(seed)
    p = {
        "w1": rng.normal(0, (2 / 9) ** 0.5, (9, 16)),
        "b1": np.zeros(16),
        "w2": rng.normal(0, (2 / 144) ** 0.5, (144, 32)),
        "b2": np.zeros(32),
        "w3": rng.normal(0, (1 / 512) ** 0.5, (512, 10)),
        "b3": np.zeros(10),
    }
    p = {name: v.astype(np.float32) for name, v in p.items()}
    moments = {name: (np.zeros_like(v), np.zeros_like(v)) for name, v in p.items()}
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), 64):
            rows = order[start : start + 64]
            step += 1
            for name, grad in _gradients(p, x[rows], y[rows]).items():
                m, v = moments[name]
                m *= 0.9
                m += 0.1 * grad
                v *= 0.999
                v += 0.001 * grad**2
                p[name] -= 4e-3 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return p


def _gradients(p: dict[str, Floats], x: Floats, y: NDArray[np.int64]) -> dict[str, Floats]:
    n = len(x)
    k1 = columns(x)
    a1 = np.maximum(k1 @ p["w1"] + p["b1"], 0)
    k2 = columns(a1.transpose(0, 3, 1, 2))
    a2 = np.maximum(k2 @ p["w2"] + p["b2"], 0)
    pooled = a2.reshape(n, 4, 2, 4, 2, 32).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(n, -1)
    scores = pooled @ p["w3"] + p["b3"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    d3 = scores / scores.sum(axis=1, keepdims=True)
    d3[np.arange(n), y] -= 1
    d3 /= n
    back = (d3 @ p["w3"].T).reshape(n, 32, 4, 4).transpose(0, 2, 3, 1) / 4
    d2 = np.repeat(np.repeat(back, 2, axis=1), 2, axis=2) * (a2 > 0)
    dk = (d2 @ p["w2"].T).reshape(n, 8, 8, 16, 9)
    d1 = np.zeros((n, 10, 10, 16), np.float32)
    for i in range(3):
        for j in range(3):
            d1[:, i : i + 8, j : j + 8] += dk[..., 3 * i + j]
    d1 = d1[:, 1:9, 1:9] * (a1 > 0)
    return {
        "w1": k1.reshape(-1, 9).T @ d1.reshape(-1, 16),
        "b1": d1.sum(axis=(0, 1, 2)),
        "w2": k2.reshape(-1, 144).T @ d2.reshape(-1, 32),
        "b2": d2.sum(axis=(0, 1, 2)),
        "w3": pooled.T @ d3,
        "b3": d3.sum(axis=0),
    }


def node(op: str, inputs: list[str], output: str, **given: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"{op}_{output}", **given)


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Floats], shape: list[int | str]
) -> onnx.ModelProto:
    """From `x` to `y`, 10 probabilities."""
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def cnn(p: dict[str, Floats]) -> onnx.ModelProto:
    """The network that `train_cnn` trained."""
    same = {"pads": [1, 1, 1, 1]}
    return model_of(
        [
            node("Conv", ["x", "w1", "b1"], "c1", **same),
            node("Relu", ["c1"], "r1"),
            node("Conv", ["r1", "w2", "b2"], "c2", **same),
            node("Relu", ["c2"], "r2"),
            node("AveragePool", ["r2"], "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p"], "f"),
            node("Gemm", ["f", "w3", "b3"], "l"),
            node("Softmax", ["l"], "y"),
        ],
        {
            **p,
            "w1": np.ascontiguousarray(p["w1"].T).reshape(16, 1, 3, 3),
            "w2": np.ascontiguousarray(p["w2"].T).reshape(32, 16, 3, 3),
        },
        [1, 8, 8],
    )


def uneven(p: dict[str, Floats], *, decades: float = 1.5, seed: int = 1) -> dict[str, Floats]:
    """The same function: channels of both convolutions times 10^u, u even in +-`decades`."""
    rng = np.random.default_rng(seed)
    first = (10 ** rng.uniform(-decades, decades, 16)).astype(np.float32)
    second = (10 ** rng.uniform(-decades, decades, 32)).astype(np.float32)
    return {
        **p,
        "w1": p["w1"] * first,
        "b1": p["b1"] * first,
        "w2": p["w2"] / np.repeat(first, 9)[:, None] * second,
        "b2": p["b2"] * second,
        "w3": p["w3"] / np.repeat(second, 16)[:, None],
    }


def mobile(*, seed: int = 2) -> onnx.ModelProto:
    """Depthwise and pointwise blocks with weights by chance, and a head trained on what they give.

    Weights of one scale a channel by chance stand for folded batch normalization.
    """
    rng = np.random.default_rng(seed)
    constants: dict[str, Floats] = {}
    nodes: list[onnx.NodeProto] = []

    def conv(name: str, source: str, shape: tuple[int, ...], **given: object) -> str:
        fan_in = int(np.prod(shape[1:]))
        sizes = np.exp(rng.normal(0, 0.7, (shape[0], 1, 1, 1)))
        w = rng.normal(0, (2 / fan_in) ** 0.5, shape) * sizes
        constants[f"{name}.w"] = w.astype(np.float32)
        constants[f"{name}.b"] = (0.1 * rng.normal(size=shape[0])).astype(np.float32)
        nodes.append(node("Conv", [source, f"{name}.w", f"{name}.b"], f"{name}.c", **given))
        nodes.append(node("Relu", [f"{name}.c"], f"{name}.r"))
        return f"{name}.r"

    pads = {"pads": [1, 1, 1, 1]}
    last = conv("stem", "x", (16, 1, 3, 3), **pads)
    for index, (a, b, stride) in enumerate([(16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)]):
        last = conv(f"d{index}", last, (a, 1, 3, 3), group=a, strides=[stride, stride], **pads)
        last = conv(f"p{index}", last, (b, a, 1, 1))
    nodes.append(node("AveragePool", [last], "pool", kernel_shape=[2, 2]))
    nodes.append(node("Flatten", ["pool"], "f"))
    return _with_head(nodes, constants, "f", 128)


def _with_head(
    nodes: list[onnx.NodeProto], constants: dict[str, Floats], features: str, width: int
) -> onnx.ModelProto:
    """Logistic regression over the features, standardized, as one dense layer and a softmax."""
    import onnxruntime
    from sklearn.linear_model import LogisticRegression

    x, y, _, _ = digits_images()
    body = model_of(nodes, constants, [1, 8, 8])
    body.graph.ClearField("output")
    body.graph.output.append(
        helper.make_tensor_value_info(features, TensorProto.FLOAT, ["batch", width])
    )
    (seen,) = onnxruntime.InferenceSession(body.SerializeToString()).run(None, {"x": x})
    mean, spread = seen.mean(axis=0), seen.std(axis=0) + 1e-6
    head = LogisticRegression(max_iter=400, C=1.0).fit((seen - mean) / spread, y)
    w = (head.coef_ / spread).T
    constants["head.w"] = w.astype(np.float32)
    constants["head.b"] = (head.intercept_ - mean @ w).astype(np.float32)
    nodes += [
        node("Gemm", [features, "head.w", "head.b"], "l"),
        node("Softmax", ["l"], "y"),
    ]
    return model_of(nodes, constants, [1, 8, 8])


def tasks() -> list[tuple[str, Callable[[], Task]]]:
    """What the figures are taken on, by name; each is made when it is asked for."""
    trained: dict[str, Floats] = {}

    def weights() -> dict[str, Floats]:
        if not trained:
            trained.update(train_cnn())
        return trained

    def images(name: str, model: onnx.ModelProto) -> Task:
        x, _, held_out, truth = digits_images()
        return Task(name, model.SerializeToString(), x[:256], held_out, truth)

    return [
        ("digits-mlp", _digits_mlp),
        ("digits-cnn", lambda: images("digits-cnn", cnn(weights()))),
        ("cnn-uneven", lambda: images("cnn-uneven", cnn(uneven(weights())))),
        ("mobile", lambda: images("mobile", mobile())),
        ("cancer-mlp", _cancer_mlp),
    ]


def _digits_mlp() -> Task:
    x, y, held_out, truth = digits_images()
    flat, test = x.reshape(len(x), -1), held_out.reshape(len(held_out), -1)
    return _sklearn_mlp("digits-mlp", flat, y, test, truth)


def _cancer_mlp() -> Task:
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    x, y = load_breast_cancer(return_X_y=True)
    a, b, c, d = train_test_split(x.astype(np.float32), y, test_size=0.5, random_state=0)
    task = _sklearn_mlp("cancer-mlp", a, c, b, d)
    return replace(task, formats=("onnx",))  # what becomes of two classes is not written as TFLite


def _sklearn_mlp(
    name: str, x: Floats, y: NDArray[np.int64], held_out: Floats, truth: NDArray[np.int64]
) -> Task:
    """A perceptron on standardized features, the standardizing folded into its first layer."""
    import skops.io
    from sklearn.neural_network import MLPClassifier

    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    fitted = MLPClassifier((64, 32), max_iter=300, random_state=0).fit((x - mean) / spread, y)
    first = fitted.coefs_[0] / spread[:, None]
    fitted.intercepts_[0] = fitted.intercepts_[0] - mean @ first
    fitted.coefs_[0] = first
    truth = truth.astype(np.int64)
    return Task(name, skops.io.dumps(fitted), x[:256], held_out, truth, key=repr(fitted))
