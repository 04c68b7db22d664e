"""A TFLite file that takes and gives int8, with TFLite's own rounding in front and behind. Pure.

Whoever calls a model has float32, as its source takes it. A file that leaves the rounding to its
caller is timed with it, as files that round by themselves are.
"""

from __future__ import annotations

import copy
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgefleet_converter.passes.tflite_file import parse, serialize

_INT8 = schema.TensorType.INT8
_OP = schema.BuiltinOperator


def takes_int8(raw: bytes) -> bool:
    """Whether a TFLite file takes int8."""
    graph = parse(raw).subgraphs[0]
    return any(graph.tensors[index].type == _INT8 for index in graph.inputs)


def with_float_ends(raw: bytes) -> bytes:
    """The same file, with QUANTIZE behind its inputs and DEQUANTIZE before its outputs."""
    model = parse(raw)
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = list(graph.inputs), list(graph.outputs)
    signature = (model.signatureDefs or [None])[0]
    front, behind = [], []
    for ends, entries, code, into in (
        (graph.inputs, signature.inputs if signature else [], _OP.QUANTIZE, front),
        (graph.outputs, signature.outputs if signature else [], _OP.DEQUANTIZE, behind),
    ):
        for place, index in enumerate(ends):
            if graph.tensors[index].type != _INT8:
                continue
            new = _float_twin(graph, index)
            takes, gives = (new, index) if into is front else (index, new)
            operator = schema.OperatorT(
                opcodeIndex=_code(model, code), inputs=[takes], outputs=[gives]
            )
            into.append(operator)
            ends[place] = new
            for entry in entries:
                entry.tensorIndex = new if entry.tensorIndex == index else entry.tensorIndex
    graph.operators = [*front, *graph.operators, *behind]
    return serialize(model)


def _float_twin(graph: Any, index: int) -> int:
    """A float32 tensor of the same shape."""
    twin = copy.copy(graph.tensors[index])
    twin.type, twin.quantization, twin.buffer = schema.TensorType.FLOAT32, None, 0
    twin.name = (twin.name or b"") + b".float"
    graph.tensors.append(twin)
    return len(graph.tensors) - 1


def _code(model: Any, builtin: int) -> int:
    version = 2 if builtin == _OP.DEQUANTIZE else 1
    model.operatorCodes.append(
        schema.OperatorCodeT(
            builtinCode=builtin, deprecatedBuiltinCode=min(builtin, 127), version=version
        )
    )
    return len(model.operatorCodes) - 1
