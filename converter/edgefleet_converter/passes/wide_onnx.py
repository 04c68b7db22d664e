"""int16 activations over int8 weights in ONNX, so that every onnxruntime computes the same.

Newer releases join a Gemm or MatMul with the DequantizeLinear of its weights, and then round its
activations to 8 bits: the other 8 were for nothing, and answers differ by release. Here such
weights come from a Cast and a Mul, which onnxruntime does once while it loads. A Gemm becomes a
MatMul and an Add: constant weights of a Gemm between quantizers would be quantized anew.
Convolutions are left as they are, with a DequantizeLinear of their weights at each inference.
"""

from __future__ import annotations

from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def keep_float_sums(model: ModelProto) -> None:
    """Rewrite the dense layers of a QDQ model in place."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[NodeProto] = []
    for node in graph.node:
        weights = makers.get(node.input[1]) if len(node.input) > 1 else None
        is_dense = node.op_type in ("Gemm", "MatMul") and weights is not None
        if weights is None or not is_dense or weights.input[0] not in constants:
            nodes.append(node)
            continue
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if given.get("transA") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
            nodes.append(node)
            continue
        nodes += _dense(graph, node, weights, constants, is_turned=bool(given.get("transB")))
    used = {name for node in nodes for name in node.input}
    used |= {value.name for value in graph.output}
    nodes = [node for node in nodes if used & set(node.output)]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, items in (("node", nodes), ("initializer", kept)):
        graph.ClearField(field)
        getattr(graph, field).extend(items)


def _dense(
    graph: Any,
    node: NodeProto,
    weights: NodeProto,
    constants: dict[str, Any],
    *,
    is_turned: bool,
) -> list[NodeProto]:
    """x @ (cast(W) * scale) + b."""
    name = node.output[0]
    values, scale = constants[weights.input[0]], constants[weights.input[1]]
    axis = next((one.i for one in weights.attribute if one.name == "axis"), 1)
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    scale = scale.reshape(shape)
    if is_turned:
        values, scale = values.T, scale.T
    for end, array in (("int8", values), ("scale", scale)):
        graph.initializer.append(numpy_helper.from_array(array.copy(), f"{name}.wide.{end}"))
    has_bias = len(node.input) > 2 and bool(node.input[2])
    product = f"{name}.wide.product" if has_bias else name
    made = [
        helper.make_node(
            "Cast", [f"{name}.wide.int8"], [f"{name}.wide.cast"], to=TensorProto.FLOAT
        ),
        helper.make_node(
            "Mul", [f"{name}.wide.cast", f"{name}.wide.scale"], [f"{name}.wide.weights"]
        ),
        helper.make_node("MatMul", [node.input[0], f"{name}.wide.weights"], [product]),
    ]
    if has_bias:
        made.append(helper.make_node("Add", [product, node.input[2]], [name]))
    for index, one in enumerate(made):
        one.name = f"{name}.{index}"
    return made
