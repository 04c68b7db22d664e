"""Float ONNX to float TFLite, with no TensorFlow: a stated set of operators, or a clear refusal.

What is written is listed in `HANDLERS`. A batch dimension that varies stays so. What the file
computes is compared with its source afterwards; this module only translates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import ModelProto

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes import (
    tflite_curves,
    tflite_images,
    tflite_operators,
    tflite_shapes,
)
from edgefleet_converter.passes.lift_series import lift_series
from edgefleet_converter.passes.tflite_translation import Translation, attributes

HANDLERS: Final = {
    **tflite_operators.HANDLERS,
    **tflite_curves.HANDLERS,
    **tflite_images.HANDLERS,
    **tflite_shapes.HANDLERS,
}
"""Every operator that is written, and how."""


def write() -> dict[str, Json]:
    """`model.tflite` from `model.onnx`."""
    model = onnx.load("model.onnx")
    translate(model, Path("model.tflite"))
    return {}


def translate(model: ModelProto, path: Path) -> None:
    """Write a model as TFLite.

    Raises:
        OperatorError: naming every operator and node that cannot be written.
    """
    refuse_unsupported(model)
    model = lift_series(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    translation = Translation.begin(inferred)
    graph = inferred.graph
    inputs = {}
    for value in graph.input:
        if value.name in translation.constants:
            continue
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
            raise OperatorError(
                f"input {value.name!r} is {kind}; the TFLite writer takes float32",
                hint="take the tflite targets out of the recipe, or let the model cast outside",
            )
        inputs[value.name] = translation.feed(value.name)
    for node in graph.node:
        _translate_node(translation, node)
    outputs = {value.name: translation.output(value.name) for value in graph.output}
    translation.file.save(path, inputs, outputs)


def refuse_unsupported(model: ModelProto) -> None:
    """Refuse operators that are not written here, all at once.

    Raises:
        OperatorError: naming each operator with its nodes.
    """
    found: dict[str, list[str]] = {}
    for index, node in enumerate(model.graph.node):
        if node.op_type not in HANDLERS:
            found.setdefault(node.op_type, []).append(node.name or f"node {index}")
    if found:
        names = "; ".join(
            f"{kind} ({', '.join(nodes[:5])}{', …' if len(nodes) > 5 else ''})"
            for kind, nodes in sorted(found.items())
        )
        raise OperatorError(
            f"operators that cannot be written as TFLite: {names}",
            hint="take the tflite targets out of the recipe: the onnx targets support them",
        )


def _translate_node(translation: Translation, node: onnx.NodeProto) -> None:
    name = node.name or f"the {node.op_type} that gives {node.output[0]!r}"
    try:
        HANDLERS[node.op_type](translation, node, attributes(node))
    except OperatorError as error:
        raise OperatorError(
            f"{node.op_type} ({name}) cannot be written as TFLite: {error.message}",
            hint=error.hint or "take the tflite targets out of the recipe",
        ) from None
    for output in node.output:
        if output in translation.constants:
            array = translation.constants[output]
            if array.dtype == np.float64:
                translation.constants[output] = array.astype(np.float32)
