"""float16 ONNX: weights stored in half precision, and everything computed in float32.

A Cast stands behind each weight. onnxruntime does it once, while it loads, so that the file is half
as large, and inference is what it was. Computing in float16 is not asked for: onnxruntime's CPU
provider has few kernels for it and casts around the rest, and where a processor has them, answers
would differ from the desk's by a thousandth.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgefleet_contract.errors import OperatorError

_WEIGHTS_OF: Final = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), (0, 1)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (1, 2)),
    "Gather": (0,),
}
"""Which inputs of an operator are its weights, where they are constant."""

_LARGEST: Final = float(np.finfo(np.float16).max)


def with_half_weights(model: ModelProto) -> ModelProto:
    """The model with its weights in float16. Those that do not fit into it stay as they are.

    Raises:
        OperatorError: it has no weights of that kind.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    wanted: dict[str, TensorProto] = {}
    for node in graph.node:
        for place in _WEIGHTS_OF.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            tensor = weights.get(name)
            if tensor is not None and tensor.data_type == TensorProto.FLOAT:
                wanted[name] = tensor
    halves = {name: half for name, tensor in wanted.items() if (half := _half(tensor)) is not None}
    if not halves:
        raise OperatorError(
            "no weights to store in float16: no convolution and no dense layer",
            hint="take the float16 target out of the recipe; a float32 target works",
        )
    graph.ClearField("initializer")
    graph.initializer.extend(halves.get(name, tensor) for name, tensor in weights.items())
    casts = [
        helper.make_node("Cast", [half.name], [name], name=f"{name}.float32", to=TensorProto.FLOAT)
        for name, half in halves.items()
    ]
    nodes = [*casts, *graph.node]
    graph.ClearField("node")
    graph.node.extend(nodes)
    kept = [value for value in graph.input if value.name not in halves]
    graph.ClearField("input")
    graph.input.extend(kept)
    return model


def _half(tensor: TensorProto) -> TensorProto | None:
    values = numpy_helper.to_array(tensor)
    if values.size == 0 or not float(np.abs(values).max()) <= _LARGEST:
        return None
    return numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}.float16")
