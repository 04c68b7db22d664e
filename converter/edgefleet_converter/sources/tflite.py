"""TFLite in, ONNX out, by tf2onnx. A worker task of the toolchain.

Float models come out as they are, quantized ones with a QuantizeLinear and a DequantizeLinear at
every tensor: the integers that go in and come out stay integers. The runtimes that devices have say
afterwards how far that is from the source.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.sources import exported

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

_TOOLS = ("tensorflow-cpu", "tensorflow", "tf2onnx", "onnx")


def to_onnx(*, takes: list[str], gives: list[str]) -> dict[str, Json]:
    """`model.onnx` from the TFLite file `source`, its tensors named and ordered as there.

    Raises:
        OperatorError: tf2onnx does not know an operator, or makes other tensors of it.
    """
    import onnx
    import tf2onnx

    Path("source").rename("source.tflite")
    try:
        model, _ = tf2onnx.convert.from_tflite("source.tflite", opset=exported.OPSET)
    except Exception as error:  # noqa: BLE001 - it may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        raise OperatorError(
            f"tf2onnx does not convert it: {said}",
            hint="take the onnx targets out of the recipe",
        ) from None
    graph = model.graph
    for values, names in ((graph.input, takes), (graph.output, gives)):
        found = {value.name: value for value in values}
        if len(found) != len(names):
            raise OperatorError(f"tf2onnx makes {', '.join(found)} of {', '.join(names)}")
        if set(found) == set(names):
            ordered = [found[name] for name in names]
            copies = [type(value).FromString(value.SerializeToString()) for value in ordered]
            del values[:]
            values.extend(copies)
        else:
            for value, name in zip(list(values), names, strict=True):
                exported.rename(graph, value.name, name)
    exported.clean(model)
    exported.name_batch(graph)
    onnx.save(model, "model.onnx")
    versions: dict[str, Json] = dict(exported.tools(*_TOOLS))
    return {"tools": versions}
