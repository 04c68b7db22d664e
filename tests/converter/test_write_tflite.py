"""Each operator that is written, against onnxruntime on the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edgefleet_contract.bundle import Format
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.metrics import relative_err
from edgefleet_converter.passes.write_tflite import HANDLERS, translate
from edgefleet_converter.runners import open_model, run_all
from tests.converter import models
from tests.converter.models import graph, one, weights

VECTOR: tuple[int, ...] = (6,)
IMAGE: tuple[int, ...] = (4, 8, 7)


def case(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int] = VECTOR,
    gives: Sequence[int] = VECTOR,
    opset: int = 18,
    **constants: np.ndarray,
) -> onnx.ModelProto:
    return graph(nodes, shape=["n", *shape], gives=["n", *gives], constants=constants, opset=opset)


def conv(gives: Sequence[int], w: np.ndarray, **given: object) -> onnx.ModelProto:
    return case([one("Conv", ["x", "w"], **given)], IMAGE, gives, w=w)


ROW = weights(6, seed=7, scale=2.0)
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
CASES: dict[str, onnx.ModelProto] = {
    "Gemm": case([one("Gemm", ["x", "w", "b"], alpha=0.5, beta=2.0)], w=weights(6, 6), b=ROW),
    "Gemm transB": case([one("Gemm", ["x", "w"], transB=1)], gives=[3], w=weights(3, 6)),
    "MatMul": case([one("MatMul", ["x", "w"])], gives=[3], w=weights(6, 3)),
    "Add": case([one("Add", ["x", "c"])], c=ROW),
    "Add to itself": case([one("Add", ["x", "x"])]),
    "Sub": case([one("Sub", ["x", "c"])], c=ROW.reshape(1, 6)),
    "Sub from": case([one("Sub", ["c", "x"])], c=ROW),
    "Mul": case([one("Mul", ["x", "c"])], c=np.asarray([3.0], np.float32)),
    "Div": case([one("Div", ["x", "c"])], c=ROW),
    "Div by computed": case(
        [one("Sigmoid", ["x"], "s"), one("Div", ["x", "s"])],
    ),
    "Relu": case([one("Relu")]),
    "Relu after Gemm": case([one("Gemm", ["x", "w"], "a"), one("Relu", ["a"])], w=weights(6, 6)),
    "Clip to 6": case(
        [one("Mul", ["x", "s"], "a"), one("Clip", ["a", "lo", "hi"])],
        s=np.asarray(5.0, np.float32),
        lo=np.asarray(0.0, np.float32),
        hi=np.asarray(6.0, np.float32),
    ),
    "Sigmoid": case([one("Sigmoid")]),
    "Tanh": case([one("Tanh")]),
    "Softmax": case([one("Softmax", axis=1)]),
    "Concat": case([one("Sigmoid", ["x"], "s"), one("Concat", ["x", "s"], axis=-1)], gives=[12]),
    "Concat of channels": case(
        [
            one("Conv", ["x", "w"], "a"),
            one("Relu", ["a"], "r"),
            one("Concat", ["a", "r"], axis=1),
        ],
        IMAGE,
        [6, 6, 5],
        w=weights(3, 4, 3, 3),
    ),
    "Concat of rows": case(
        [
            one("Conv", ["x", "w"], "a"),
            one("Relu", ["a"], "r"),
            one("Concat", ["r", "a"], axis=2),
        ],
        IMAGE,
        [3, 12, 5],
        w=weights(3, 4, 3, 3),
    ),
    "Reshape": case([one("Reshape", ["x", "s"])], gives=[2, 3], s=np.asarray([0, 2, 3])),
    "Reshape of all but one": case(
        [one("Reshape", ["x", "s"])], IMAGE, [4 * 8 * 7], s=np.asarray([-1, 224])
    ),
    "Flatten": case([one("Flatten")], IMAGE, [4 * 8 * 7]),
    "Identity": case([one("Identity", ["x"], "a"), one("Relu", ["a"])]),
    "Cast": case([one("Cast", ["x"], "a", to=1), one("Tanh", ["a"])]),
    "Constant": case(
        [
            one("Constant", [], "c", value=onnx.numpy_helper.from_array(ROW)),
            one("Mul", ["x", "c"]),
        ]
    ),
    "Scaler": case([one("Scaler", offset=ROW.tolist(), scale=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])]),
    "Conv": conv([3, 6, 5], weights(3, 4, 3, 3)),
    "Conv same": conv([3, 8, 7], weights(3, 4, 3, 3), pads=[1, 1, 1, 1]),
    "Conv odd pads": conv([3, 9, 6], weights(3, 4, 3, 3), pads=[2, 0, 1, 1]),
    "Conv strided": conv([3, 4, 4], weights(3, 4, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
    "Conv dilated": conv([3, 4, 3], weights(3, 4, 3, 3), dilations=[2, 2]),
    "Conv depthwise": conv([4, 8, 7], weights(4, 1, 3, 3), group=4, pads=[1, 1, 1, 1]),
    "Conv depth multiplier": conv([8, 6, 5], weights(8, 1, 3, 3), group=4),
    "MaxPool": case([one("MaxPool", **POOL)], IMAGE, [4, 4, 3]),
    "AveragePool": case([one("AveragePool", **POOL)], IMAGE, [4, 4, 3]),
    "AveragePool with zeros": case(
        [one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        IMAGE,
        [4, 8, 7],
    ),
    "GlobalAveragePool": case([one("GlobalAveragePool")], IMAGE, [4, 1, 1]),
    "ReduceMean": case(
        [one("ReduceMean", ["x", "a"], keepdims=0)], IMAGE, [4], a=np.asarray([2, 3])
    ),
    "two convolutions and an addition": case(
        [
            one("Conv", ["x", "w"], "a", pads=[1, 1, 1, 1]),
            one("Relu", ["a"], "b"),
            one("Conv", ["b", "v"], "c", pads=[1, 1, 1, 1]),
            one("Add", ["b", "c"]),
        ],
        IMAGE,
        [4, 8, 7],
        w=weights(4, 4, 3, 3, seed=1),
        v=weights(4, 4, 3, 3, seed=2),
    ),
    **{name: case([one(name)]) for name in ("HardSwish", "Abs", "Exp", "Neg", "LeakyRelu", "Elu")},
    "HardSigmoid": case([one("HardSigmoid", alpha=1 / 6)]),
    "HardSigmoid of its defaults": case([one("HardSigmoid")]),
    "Gelu": case([one("Gelu", approximate="tanh")], opset=20),
    "Sqrt": case([one("Abs", ["x"], "a"), one("Sqrt", ["a"])]),
    "Pow 2": case([one("Pow", ["x", "e"])], e=np.asarray(2, np.float32)),
    "Pow half": case([one("Abs", ["x"], "a"), one("Pow", ["a", "e"])], e=np.asarray([0.5], "f4")),
    "Reciprocal": case([one("Exp", ["x"], "a"), one("Reciprocal", ["a"])]),
    "Max": case([one("Max", ["c", "x"])], c=np.asarray(0.3, np.float32)),
    "Min": case([one("Sigmoid", ["x"], "a"), one("Min", ["x", "a"])]),
    "Clip to other bounds": case(
        [one("Clip", ["x", "lo", "hi"])],
        lo=np.asarray(-0.5, np.float32),
        hi=np.asarray(1.5, np.float32),
    ),
    "Clip from below": case([one("Clip", ["x", "lo"])], lo=np.asarray(-0.5, np.float32)),
    "PRelu": case([one("PRelu", ["x", "s"])], s=ROW),
    "PRelu of images": case(
        [one("Conv", ["x", "w"], "a"), one("PRelu", ["a", "s"])],
        IMAGE,
        [3, 6, 5],
        w=weights(3, 4, 3, 3),
        s=weights(3, 1, 1),
    ),
    "BatchNormalization": case(
        [one("BatchNormalization", ["x", "s", "b", "m", "v"], "a"), one("Relu", ["a"])],
        IMAGE,
        IMAGE,
        s=weights(4, seed=1),
        b=weights(4, seed=2),
        m=weights(4, seed=3),
        v=weights(4, seed=4) ** 2,
    ),
    "MatMul of three dimensions": case(
        [one("MatMul", ["x", "w"])], [5, 6], [5, 3], w=weights(6, 3)
    ),
    "Transpose": case([one("Transpose", perm=[0, 2, 3, 1])], IMAGE, [8, 7, 4]),
    "Pad": case(
        [one("Pad", ["x", "p"])], IMAGE, [4, 11, 7], p=np.asarray([0, 0, 1, 0, 0, 0, 2, 0])
    ),
    "Pad with a value": case(
        [one("Conv", ["x", "w"], "a"), one("Pad", ["a", "p", "v", "axes"])],
        IMAGE,
        [3, 7, 7],
        w=weights(3, 4, 3, 3),
        p=np.asarray([1, 0, 1, 1]),
        v=np.asarray(0.5, np.float32),
        axes=np.asarray([-1, 2]),
    ),
    "Slice": case(
        [one("Slice", ["x", "s", "e", "a", "t"])],
        IMAGE,
        [4, 3, 2],
        s=np.asarray([1, -4]),
        e=np.asarray([7, 2**31]),
        a=np.asarray([2, 3]),
        t=np.asarray([2, 2]),
    ),
    "Split": case(
        [
            helper.make_node("Split", ["x"], ["a", "b"], name="split", axis=1, num_outputs=2),
            one("Sub", ["b", "a"]),
        ],
        IMAGE,
        [2, 8, 7],
    ),
    "Softmax of channels": case([one("Softmax", axis=1)], IMAGE, IMAGE),
    "Resize to the nearest": case(
        [
            one(
                "Resize",
                ["x", "", "s"],
                mode="nearest",
                coordinate_transformation_mode="half_pixel",
            )
        ],
        IMAGE,
        [4, 16, 21],
        s=np.asarray([1, 1, 2, 3], np.float32),
    ),
    "Resize to the nearest, by corners": case(
        [
            one(
                "Resize",
                ["x", "", "s"],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        IMAGE,
        [4, 16, 14],
        s=np.asarray([1, 1, 2, 2], np.float32),
    ),
    **{
        f"Resize linear, {where}": case(
            [
                one(
                    "Resize",
                    ["x", "", "", "s"],
                    mode="linear",
                    axes=[2, 3],
                    coordinate_transformation_mode=where,
                )
            ],
            IMAGE,
            [4, 16, 10],
            s=np.asarray([16, 10]),
        )
        for where in ("half_pixel", "align_corners")
    },
    **{
        name: case([one(name, ["x", "a"], keepdims=1)], IMAGE, [4, 1, 7], a=np.asarray([-2]))
        for name in ("ReduceSum", "ReduceMax", "ReduceMin")
    },
    "ReduceMean of rows": case(
        [one("ReduceMean", ["x", "a"], keepdims=0)], gives=[], a=np.asarray([1])
    ),
    "GlobalMaxPool": case([one("GlobalMaxPool")], IMAGE, [4, 1, 1]),
    "Conv of groups": conv([6, 6, 5], weights(6, 2, 3, 3), group=2),
    "MaxPool with pads": case(
        [one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], IMAGE, [4, 4, 4]
    ),
    "MaxPool behind Relu": case(
        [
            one("Relu", ["x"], "a"),
            one("MaxPool", ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        ],
        IMAGE,
        [4, 4, 4],
    ),
    "MaxPool that hangs over": case(
        [one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], IMAGE, [4, 4, 3]
    ),
    "AveragePool with pads": case(
        [one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        IMAGE,
        [4, 4, 4],
    ),
    "channels that are weighed": case(
        [
            one("Conv", ["x", "w"], "a"),
            one("GlobalAveragePool", ["a"], "p"),
            one("Conv", ["p", "v"], "q"),
            one("HardSigmoid", ["q"], "s", alpha=1 / 6),
            one("Mul", ["s", "a"], "m"),
            one("Add", ["m", "c"]),
        ],
        IMAGE,
        [3, 6, 5],
        w=weights(3, 4, 3, 3),
        v=weights(3, 3, 1, 1),
        c=weights(3, 1, 1),
    ),
    "series": case(
        [
            one("Conv", ["x", "w"], "a", pads=[1, 1], strides=[2], group=2),
            one("Relu", ["a"], "r"),
            one("Add", ["r", "c"], "s"),
            one("MaxPool", ["s"], "m", kernel_shape=[2], strides=[2]),
            one("Concat", ["m", "m"], "d", axis=1),
            one("AveragePool", ["d"], "v", kernel_shape=[3], pads=[1, 1]),
            one("GlobalAveragePool", ["v"], "p"),
            one("Mul", ["v", "p"]),
        ],
        [4, 18],
        [12, 4],
        w=weights(6, 2, 3),
        c=weights(6, 1),
    ),
    "a series beside the windows": case(
        [one("Conv", ["x", "w"], "a", pads=[2, 0], group=4), one("Sub", ["x", "a"])],
        [4, 9],
        [4, 9],
        w=weights(4, 1, 3),
    ),
    "a bias of one value a channel": case(
        [one("Conv", ["x", "w"], "a"), one("Add", ["a", "c"])],
        IMAGE,
        [3, 6, 5],
        w=weights(3, 4, 3, 3),
        c=weights(1, 3, 1, 1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_computes_what_onnx_computes(name: str, tmp_path: Path) -> None:
    model = CASES[name]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "m.onnx")
    translate(model, tmp_path / "m.tflite")
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    inputs = (models.examples(5, *shape),)
    (expected,) = run_all(open_model(tmp_path / "m.onnx", Format.ONNX), inputs)
    runner = open_model(tmp_path / "m.tflite", Format.TFLITE)
    for rows in (1, 5, 3):  # resized up and down
        (found,) = runner.infer((inputs[0][:rows],))
        assert found.shape == expected[:rows].shape
        assert relative_err(expected[:rows], found) < 2e-6
    assert runner.inputs[0].name == "x"
    assert runner.outputs[0].name == "y"
    assert runner.outputs[0].shape[0] == -1


def test_every_operator_that_is_written_is_tested() -> None:
    tested = {node.op_type for model in CASES.values() for node in model.graph.node}
    # Spelled as a Reshape, or as nothing, by the same function.
    assert set(HANDLERS) - tested <= {"Squeeze", "Unsqueeze", "Dropout"}


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    model = graph([one("Tanh")], shape=[2, 3], gives=[2, 3])
    translate(model, tmp_path / "m.tflite")
    assert open_model(tmp_path / "m.tflite", Format.TFLITE).inputs[0].shape == (2, 3)


def test_unsupported_operators_are_named_all_at_once(tmp_path: Path) -> None:
    nodes = [one("Erf", ["x"], "a"), one("Sinh", ["a"], "b"), one("Erf", ["b"])]
    with pytest.raises(OperatorError) as caught:
        translate(case(nodes), tmp_path / "m.tflite")
    assert "Erf (Erf_a, Erf_y); Sinh (Sinh_b)" in caught.value.message
    assert not (tmp_path / "m.tflite").exists()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (case([one("Gemm", ["x", "x"], transB=1)], gives=[6]), "has to be constant"),
        (case([one("Softmax", axis=2)], IMAGE, IMAGE), "only over the last axis"),
        (
            case(
                [one("Resize", ["x", "", "s"], mode="linear")],
                IMAGE,
                [4, 8, 10],
                s=np.asarray([1, 1, 1, 1.5], np.float32),
            ),
            "scales [1.0, 1.0, 1.0, 1.5] of sizes [4, 8, 7]",
        ),
        (case([one("ReduceSum", ["x", "a"])], a=np.asarray([0])), "the batch is not reduced"),
        (case([one("Pow", ["x", "e"])], e=np.asarray(3, np.float32)), "to the power of [3.0]"),
        (case([one("Elu", alpha=0.5)]), "only alpha 1"),
        (
            case([one("Pad", ["x", "p"], mode="reflect")], gives=[8], p=np.asarray([0, 1, 0, 1])),
            "mode reflect",
        ),
        (case([one("Concat", ["x", "x"], axis=0)]), "it joins along the batch"),
        (
            graph(
                [one("Concat", ["x", "c"], axis=1)],
                shape=[1, 6],
                gives=[1, 12],
                constants={"c": ROW.reshape(1, 6)},
            ),
            "only what is computed is joined",
        ),
        (
            case([one("Reshape", ["x", "s"])], gives=[3], s=np.asarray([-1, 3])),
            "it mixes the batch",
        ),
    ],
)
def test_a_form_that_is_not_written_is_refused_with_its_node(
    model: onnx.ModelProto, says: str, tmp_path: Path
) -> None:
    with pytest.raises(OperatorError) as caught:
        translate(model, tmp_path / "m.tflite")
    assert says in caught.value.message
    assert model.graph.node[0].name in caught.value.message
