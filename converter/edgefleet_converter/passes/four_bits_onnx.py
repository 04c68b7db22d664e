"""int4 ONNX: weights in blocks of four bits, everything computed in float32.

Dense layers become `com.microsoft.MatMulNBits`, which multiplies from the four bits: it is there in
onnxruntime 1.19, the oldest that bundles name, and weights stay small in memory. ONNX's own form, a
DequantizeLinear with blocks before a MatMul, is joined into the same kernel by onnxruntime, which
then rounds activations to 8 bits on its own account; so it is not written for dense layers.

Convolutions have no such kernel. Their weights are two a byte, and plain operators take them apart:
onnxruntime does that once, while it loads, and inference is as fast as with float32. A
DequantizeLinear it would run at each inference, which takes twice the time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.four_bits import blocks_of, packed_pairs, quantize_blocks

DOMAIN: Final = "com.microsoft"
BLOCK: Final = 32
_FLOAT_SUMS: Final = 1  # accuracy_level: activations are not rounded

Floats = NDArray[np.float32]


def with_four_bits(model: ModelProto) -> ModelProto:
    """The model with the weights of Gemm, MatMul and Conv in four bits.

    Raises:
        OperatorError: it has none.
    """
    graph = model.graph
    weights = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    made: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for node in graph.node:
        new = _rewritten(node, weights, made)
        nodes += [node] if new is None else new
    if not made:
        raise OperatorError(
            "no weights to store in four bits: no convolution and no dense layer",
            hint="take the int4 target out of the recipe; a float32 target works",
        )
    used = {name for node in nodes for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    names = {tensor.name for tensor in graph.initializer} - {tensor.name for tensor in kept}
    inputs = [value for value in graph.input if value.name not in names]
    for field, items in (("node", nodes), ("initializer", [*kept, *made]), ("input", inputs)):
        graph.ClearField(field)
        getattr(graph, field).extend(items)
    if any(node.domain == DOMAIN for node in nodes) and not any(
        entry.domain == DOMAIN for entry in model.opset_import
    ):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def _rewritten(
    node: NodeProto, weights: dict[str, Floats], made: list[TensorProto]
) -> list[NodeProto] | None:
    """What stands in a node's place; None where it stays."""
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    matrix = weights.get(node.input[1]) if len(node.input) > 1 else None
    if matrix is None or matrix.size < BLOCK:
        return None
    if node.op_type == "Conv":
        return _conv(node, matrix, made)
    if node.op_type == "MatMul" and matrix.ndim == 2:
        return [_dense(node.input[0], node.output[0], matrix, made)]
    if node.op_type == "Gemm" and matrix.ndim == 2 and not given.get("transA"):
        turned = matrix.T if given.get("transB") else matrix
        return _gemm(node, given, turned * np.float32(given.get("alpha", 1.0)), weights, made)
    return None


def _gemm(
    node: NodeProto,
    given: dict[str, float],
    matrix: Floats,
    weights: dict[str, Floats],
    made: list[TensorProto],
) -> list[NodeProto] | None:
    bias = node.input[2] if len(node.input) > 2 else ""
    output = node.output[0]
    if not bias:
        return [_dense(node.input[0], output, matrix, made)]
    added = weights.get(bias)
    if added is None:
        return None
    name = f"{output}.int4.bias"
    scaled = (added * np.float32(given.get("beta", 1.0))).astype(np.float32)
    made.append(numpy_helper.from_array(scaled, name))
    product = f"{output}.int4.product"
    return [
        _dense(node.input[0], product, matrix, made),
        helper.make_node("Add", [product, name], [output], name=f"{output}.add"),
    ]


def _dense(source: str, output: str, matrix: Floats, made: list[TensorProto]) -> NodeProto:
    """x @ W with W [K, N]: bits [N, blocks, 16], low nibble first, 8 stands for zero."""
    rows, columns = matrix.shape
    values, scales = quantize_blocks(blocks_of(np.ascontiguousarray(matrix.T), BLOCK))
    bits = packed_pairs((values + 8).astype(np.uint8))
    made.append(numpy_helper.from_array(bits, f"{output}.int4"))
    made.append(numpy_helper.from_array(scales.reshape(-1), f"{output}.int4.scale"))
    return helper.make_node(
        "MatMulNBits",
        [source, f"{output}.int4", f"{output}.int4.scale"],
        [output],
        name=f"{output}.dense",
        domain=DOMAIN,
        K=rows,
        N=columns,
        bits=4,
        block_size=BLOCK,
        accuracy_level=_FLOAT_SUMS,
    )


def _conv(node: NodeProto, kernel: Floats, made: list[TensorProto]) -> list[NodeProto]:
    """Each output's weights in equal blocks of 32 at most, each a row with a scale of its own.

    The first half of all weights is in the low nibbles, the second in the high ones.
    """
    count, size = len(kernel), kernel[0].size
    pieces = next(n for n in range(-(-size // BLOCK), size + 1) if size % n == 0)
    if size // pieces < BLOCK // 4:  # scales would weigh more than weights
        pieces = 1
    values, scales = quantize_blocks(kernel.reshape(count, pieces, size // pieces))
    flat = (values.reshape(-1) + 8).astype(np.uint8)
    output = node.output[0]
    halves = np.concatenate([flat, np.full(len(flat) % 2, 8, np.uint8)]).reshape(2, -1)
    constants: dict[str, NDArray[np.generic]] = {
        "bits": halves[0] | (halves[1] << 4),
        "sixteenth": np.asarray(1 / 16, np.float32),
        "sixteen": np.asarray(16, np.float32),
        "eight": np.asarray(8, np.float32),
        "end": np.asarray([len(flat)], np.int64),
        "start": np.asarray([0], np.int64),
        "blocks": np.asarray([count * pieces, size // pieces], np.int64),
        "scale": scales.reshape(-1, 1),
        "shape": np.asarray(kernel.shape, np.int64),
    }
    made += [numpy_helper.from_array(array, f"{output}.int4.{n}") for n, array in constants.items()]
    steps = [
        ("Cast", ("bits",), "floats"),
        ("Mul", ("floats", "sixteenth"), "above"),
        ("Floor", ("above",), "high"),
        ("Mul", ("high", "sixteen"), "shifted"),
        ("Sub", ("floats", "shifted"), "low"),
        ("Concat", ("low", "high"), "both"),
        ("Slice", ("both", "start", "end"), "all"),
        ("Sub", ("all", "eight"), "signed"),
        ("Reshape", ("signed", "blocks"), "rows"),
        ("Mul", ("rows", "scale"), "scaled"),
        ("Reshape", ("scaled", "shape"), "kernel"),
    ]
    nodes = []
    for op, takes, gives in steps:
        inputs = [f"{output}.int4.{name}" for name in takes]
        name = f"{output}.int4.{gives}"
        nodes.append(helper.make_node(op, inputs, [name], name=name))
        if op == "Cast":
            nodes[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        if op == "Concat":
            nodes[-1].attribute.append(helper.make_attribute("axis", 0))
    convolution = NodeProto()
    convolution.CopyFrom(node)
    convolution.input[1] = f"{output}.int4.kernel"
    return [*nodes, convolution]
