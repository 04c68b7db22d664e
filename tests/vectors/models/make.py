"""Writes the small models that the device's tests run: `python -m tests.vectors.models.make`.

They are committed, so that those tests need no converter. Weights are integers in floats, so that
every sum is exact and expectations can be computed by hand (see tests/agent/models.py).
"""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = Path(__file__).parent
OPSET = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]


def weights() -> np.ndarray:
    """64 inputs, 10 outputs: small whole numbers."""
    return (np.arange(640).reshape(64, 10) % 7 - 3).astype(np.float32)


def info(name: str, dtype: int, *shape: object) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def constant(name: str, array: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def save(name: str, nodes: list, inputs: list, outputs: list, initializers: list = ()) -> None:
    graph = helper.make_graph(list(nodes), name, inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=8)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def linear() -> None:
    """y = x W + version: which version answered is told by x = 0."""
    for version in (1, 2):
        save(
            f"linear{version}",
            [
                helper.make_node("MatMul", ["x", "W"], ["s"]),
                helper.make_node("Add", ["s", "b"], ["y"]),
            ],
            [info("x", T.FLOAT, "n", 64)],
            [info("y", T.FLOAT, "n", 10)],
            [constant("W", weights(), np.float32), constant("b", [version] * 10, np.float32)],
        )
    save(
        "fixed",
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        [info("x", T.FLOAT, 1, 64)],
        [info("y", T.FLOAT, 1, 10)],
        [constant("W", weights(), np.float32)],
    )


def mirrors() -> None:
    """y = x: what was made of an image or of sound can be read in the answer."""
    for name, dtype, shape in (
        ("mirror_nhwc_u8", T.UINT8, ("n", 2, 3, 3)),
        ("mirror_nchw_f32", T.FLOAT, ("n", 1, 2, 5)),
        ("mirror_window_f32", T.FLOAT, ("n", "samples", "channels")),
        ("mirror_sound_f32", T.FLOAT, ("n", "samples")),
        ("mirror_sound_i16", T.INT16, ("samples",)),
        ("mirror_scores_i8", T.INT8, ("n", 4)),
    ):
        save(
            name,
            [helper.make_node("Identity", ["x"], ["y"])],
            [info("x", dtype, *shape)],
            [info("y", dtype, *shape)],
        )


def busy() -> None:
    """y = n, after n products of 256 x 256 matrices: as slow as it is asked to be."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "square"], ["next"]),
            helper.make_node("Identity", ["more"], ["go_on"]),
        ],
        "body",
        [info("i", T.INT64), info("more", T.BOOL), info("state", T.FLOAT, 256, 256)],
        [info("go_on", T.BOOL), info("next", T.FLOAT, 256, 256)],
    )
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["trips"], keepdims=0),
        helper.make_node("Cast", ["n"], ["fn"], to=T.FLOAT),
        helper.make_node("ReduceMax", ["fn"], ["level"], keepdims=0),
        helper.make_node("Mul", ["level", "zero"], ["nothing"]),
        helper.make_node("Expand", ["nothing", "size"], ["square"]),
        helper.make_node("Loop", ["trips", "", "square"], ["last"], body=body),
        helper.make_node("ReduceMax", ["last"], ["rest"], keepdims=0),
        helper.make_node("Add", ["fn", "rest"], ["y"]),
    ]
    initializers = [constant("size", [256, 256]), constant("zero", 0, np.float32)]
    save("busy", nodes, [info("n", T.INT64, "b", 1)], [info("y", T.FLOAT, "b", 1)], initializers)


def rivals() -> None:
    """Models that want to replace linear1: one says the opposite, one the same but slowly.

    `thorough` makes as many products of 256 x 256 matrices as its largest input says.
    """
    digits = ([info("x", T.FLOAT, "n", 64)], [info("y", T.FLOAT, "n", 10)])
    linear1 = [
        helper.make_node("MatMul", ["x", "W"], ["s"]),
        helper.make_node("Add", ["s", "b"], ["y"]),
    ]
    bias = constant("b", [1] * 10, np.float32)
    save("opposite", linear1, *digits, [constant("W", -weights(), np.float32), bias])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "square"], ["next"]),
            helper.make_node("Identity", ["more"], ["go_on"]),
        ],
        "body",
        [info("i", T.INT64), info("more", T.BOOL), info("state", T.FLOAT, 256, 256)],
        [info("go_on", T.BOOL), info("next", T.FLOAT, 256, 256)],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["level"], keepdims=0),
        helper.make_node("Cast", ["level"], ["trips"], to=T.INT64),
        helper.make_node("Mul", ["level", "zero"], ["nothing"]),
        helper.make_node("Expand", ["nothing", "size"], ["square"]),
        helper.make_node("Loop", ["trips", "", "square"], ["last"], body=body),
        helper.make_node("ReduceMax", ["last"], ["rest"], keepdims=0),
        helper.make_node("Add", ["b", "rest"], ["c"]),
        helper.make_node("MatMul", ["x", "W"], ["s"]),
        helper.make_node("Add", ["s", "c"], ["y"]),
    ]
    initializers = [
        constant("size", [256, 256]),
        constant("zero", 0, np.float32),
        constant("W", weights(), np.float32),
        bias,
    ]
    save("thorough", nodes, *digits, initializers)


def greedy() -> None:
    """y = n, with a tensor of n MiB in between."""
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "floats"], ["count"]),
        helper.make_node("Reshape", ["count", "one"], ["size"]),
        helper.make_node("Cast", ["n"], ["fn"], to=T.FLOAT),
        helper.make_node("ReduceMax", ["fn"], ["level"], keepdims=0),
        helper.make_node("Expand", ["level", "size"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["same"], keepdims=0),
        helper.make_node("Sub", ["fn", "same"], ["gap"]),
        helper.make_node("Add", ["gap", "same"], ["y"]),
    ]
    initializers = [constant("floats", 262144), constant("one", [1])]
    save("greedy", nodes, [info("n", T.INT64, "b", 1)], [info("y", T.FLOAT, "b", 1)], initializers)


def several() -> None:
    """Two inputs, two outputs; text in and out; a logarithm that leaves the numbers."""
    pair = [info("a", T.FLOAT, "n", 2), info("b", T.FLOAT, "n", 2)]
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Mul", ["a", "b"], ["product"]),
    ]
    save("pair", nodes, pair, [info("sum", T.FLOAT, "n", 2), info("product", T.FLOAT, "n", 2)])
    save(
        "text",
        [
            helper.make_node(
                "LabelEncoder",
                ["word"],
                ["class"],
                domain="ai.onnx.ml",
                keys_strings=["cat", "dog"],
                values_int64s=[1, 2],
                default_int64=-1,
            ),
            helper.make_node("Identity", ["word"], ["echo"]),
        ],
        [info("word", T.STRING, "n")],
        [info("class", T.INT64, "n"), info("echo", T.STRING, "n")],
    )
    save(
        "log",
        [helper.make_node("Log", ["x"], ["y"])],
        [info("x", T.FLOAT, "n")],
        [info("y", T.FLOAT, "n")],
    )
    save(
        "pick",
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [info("i", T.INT64, "n")],
        [info("y", T.FLOAT, "n")],
        [constant("table", [10, 20, 30], np.float32)],
    )


def kinds() -> None:
    """Every dtype that a bundle knows, given back as it came."""
    dtypes = {
        "bool": T.BOOL,
        "int8": T.INT8,
        "uint8": T.UINT8,
        "int16": T.INT16,
        "uint16": T.UINT16,
        "int32": T.INT32,
        "uint32": T.UINT32,
        "int64": T.INT64,
        "uint64": T.UINT64,
        "float16": T.FLOAT16,
        "float32": T.FLOAT,
        "float64": T.DOUBLE,
        "string": T.STRING,
    }
    save(
        "kinds",
        [helper.make_node("Identity", [name], [f"{name}_too"]) for name in dtypes],
        [info(name, dtype, "n", 2) for name, dtype in dtypes.items()],
        [info(f"{name}_too", dtype, "n", 2) for name, dtype in dtypes.items()],
    )


def refused() -> None:
    """Data in another file, at the top and inside a branch; an output that is no tensor."""
    outside = constant("W", weights(), np.float32)
    onnx.external_data_helper.set_external_data(outside, "weights.bin")
    outside.ClearField("raw_data")
    save(
        "external",
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        [info("x", T.FLOAT, "n", 64)],
        [info("y", T.FLOAT, "n", 10)],
        [outside],
    )
    result = [info("r", T.FLOAT, 64, 10)]
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["r"], value=outside)], "inner", [], result
    )
    plain = helper.make_node("Constant", [], ["r"], value=constant("W", weights(), np.float32))
    other = helper.make_graph([plain], "other", [], result)
    save(
        "external_branch",
        [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)],
        [info("c", T.BOOL)],
        [info("y", T.FLOAT, 64, 10)],
    )
    value = helper.make_map_type_proto(T.INT64, helper.make_tensor_type_proto(T.FLOAT, None))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(value))
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    save("zipmap", [node], [info("x", T.FLOAT, "n", 2)], [output])


def tflite() -> None:
    """The linear model in TFLite, in float32 and in int8 (scales of 1, so that int8 is exact)."""
    for name, kind, dtype, bias in (
        ("linear1", tfl.TensorType.FLOAT32, np.float32, np.float32),
        ("linear1_int8", tfl.TensorType.INT8, np.int8, np.int32),
    ):
        exact = kind == tfl.TensorType.INT8
        bias_kind = tfl.TensorType.INT32 if exact else kind
        arrays = [weights().T.astype(dtype), np.ones(10, bias)]
        model = tfl.ModelT()
        model.version = 3
        model.buffers = [tfl.BufferT() for _ in range(3)]
        for buffer, array in zip(model.buffers[1:], arrays, strict=True):
            buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        graph = tfl.SubGraphT()
        graph.tensors = [
            _tensor("x", kind, (1, 64), 0, exact, (-1, 64)),
            _tensor("W", kind, (10, 64), 1, exact),
            _tensor("b", bias_kind, (10,), 2, exact),
            _tensor("y", kind, (1, 10), 0, exact, (-1, 10)),
        ]
        operator = tfl.OperatorT()
        operator.inputs, operator.outputs = [0, 1, 2], [3]
        operator.builtinOptionsType = tfl.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = tfl.FullyConnectedOptionsT()
        graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
        code = tfl.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = tfl.BuiltinOperator.FULLY_CONNECTED
        code.version = 4 if exact else 1
        model.operatorCodes, model.subgraphs = [code], [graph]
        builder = flatbuffers.Builder(4096)
        builder.Finish(model.Pack(builder), b"TFL3")
        (HERE / f"{name}.tflite").write_bytes(bytes(builder.Output()))


def crash() -> None:
    """Two valid models that kill their runtime, as it is today.

    `crash.tflite` is an IF whose branches are the graph that it stands in: LiteRT prepares branches
    before it knows the condition, and goes down until its stack ends (SIGSEGV, on any board).
    `divide.onnx` answers x[0] / x[1] in int32. onnxruntime looks for a divisor of 0, and not for
    -2^31 / -1, which has no int32: x86 traps (SIGFPE), ARM wraps around.
    """
    graph = tfl.SubGraphT()
    graph.tensors = [_tensor(name, tfl.TensorType.BOOL, (1,), 0, False) for name in ("x", "y")]
    operator = tfl.OperatorT()
    operator.inputs, operator.outputs = [0, 0], [1]
    operator.builtinOptionsType = tfl.BuiltinOptions.IfOptions
    operator.builtinOptions = tfl.IfOptionsT()  # then 0, else 0: this graph
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    code = tfl.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = tfl.BuiltinOperator.IF
    code.version = 1
    model = tfl.ModelT()
    model.version, model.buffers = 3, [tfl.BufferT()]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (HERE / "crash.tflite").write_bytes(bytes(builder.Output()))
    save(
        "divide",
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=1),
            helper.make_node("Div", ["a", "b"], ["y"]),
        ],
        [info("x", T.INT32, "n", 2)],
        [info("y", T.INT32, "n", 1)],
    )


def _tensor(
    name: str, kind: int, shape: tuple, buffer: int, exact: bool, signature: tuple | None = None
) -> tfl.TensorT:
    tensor = tfl.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name, kind, list(shape), buffer
    if signature is not None:
        tensor.shapeSignature = list(signature)
    if exact:
        tensor.quantization = tfl.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [1.0], [0]
    return tensor


if __name__ == "__main__":
    for make in (linear, mirrors, busy, rivals, greedy, several, kinds, refused, tflite, crash):
        make()
