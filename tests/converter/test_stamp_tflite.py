from __future__ import annotations

import pytest
from ai_edge_litert import schema_py_generated as schema

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.stamp_tflite import known_of, stamp_versions
from edgefleet_converter.passes.tflite_file import parse
from edgefleet_converter.passes.tflite_versions import version_of
from edgefleet_converter.pipeline import Built

Op = schema.BuiltinOperator
NAMES = {value: name for name, value in vars(Op).items() if isinstance(value, int)}


def versions(built: Built, variant: str) -> list[tuple[str, int]]:
    model = parse((built.path / variant / "model.tflite").read_bytes())
    codes = [(NAMES[code.builtinCode], code.version) for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def test_int8_operators_carry_the_versions_that_know_int8(built: Built) -> None:
    assert versions(built, "tflite-int8") == [
        ("QUANTIZE", 1),
        ("FULLY_CONNECTED", 4),
        ("FULLY_CONNECTED", 4),
        ("SOFTMAX", 2),
        ("DEQUANTIZE", 2),
    ]


def test_float_operators_carry_the_first_versions(built: Built) -> None:
    assert {version for _, version in versions(built, "tflite-float32")} == {1}


def test_the_border_of_the_model_keeps_its_names_and_its_free_batch(built: Built) -> None:
    model = parse((built.path / "tflite-int8" / "model.tflite").read_bytes())
    graph = model.subgraphs[0]
    border = [graph.tensors[i] for i in (*graph.inputs, *graph.outputs)]
    assert [tensor.name for tensor in border] == [b"input", b"probabilities"]
    assert [list(tensor.shapeSignature) for tensor in border] == [[-1, 64], [-1, 10]]
    assert {tensor.type for tensor in border} == {schema.TensorType.FLOAT32}


def test_weights_have_a_scale_for_each_channel(built: Built) -> None:
    graph = parse((built.path / "tflite-int8" / "model.tflite").read_bytes()).subgraphs[0]
    dense = [op for op in graph.operators if len(op.inputs) == 3]
    scales = [len(graph.tensors[op.inputs[1]].quantization.scale) for op in dense]
    assert scales == [64, 10]


def quantized(kind: int, scale: float) -> object:
    return schema.TensorT(type=kind, quantization=schema.QuantizationParametersT(scale=[scale]))


@pytest.mark.parametrize(("out_scale", "version"), [(1.0, 2), (0.25, 3), (0.2, 3)])
def test_a_product_that_scales_up_needs_a_newer_version(out_scale: float, version: int) -> None:
    int8 = schema.TensorType.INT8
    tensors = [quantized(int8, 0.5), quantized(int8, 0.5), quantized(int8, out_scale)]
    operator = schema.OperatorT(inputs=[0, 1], outputs=[2])
    assert version_of(Op.MUL, operator, tensors) == version


def test_an_operator_whose_versions_are_not_known_is_refused() -> None:
    operator = schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[0])
    graph = schema.SubGraphT(
        tensors=[schema.TensorT(type=schema.TensorType.INT8, name=b"x")], operators=[operator]
    )
    code = schema.OperatorCodeT(builtinCode=Op.LSTM, version=2)
    model = schema.ModelT(operatorCodes=[code], subgraphs=[graph])
    with pytest.raises(OperatorError, match="version not known"):
        stamp_versions(model)
    stamp_versions(model, known_of(model))
    assert [one.version for one in model.operatorCodes] == [2], "it came with this one"


def of_types(*kinds: int, scales: int = 1) -> list[object]:
    """Tensors of four dimensions; the second has so many scales."""
    made = []
    for place, kind in enumerate(kinds):
        quantization = schema.QuantizationParametersT(scale=[0.5] * (scales if place == 1 else 1))
        made.append(schema.TensorT(type=kind, shape=[1, 4, 4, 4], quantization=quantization))
    return made


FLOAT, HALF = schema.TensorType.FLOAT32, schema.TensorType.FLOAT16
INT4, INT8, INT16 = schema.TensorType.INT4, schema.TensorType.INT8, schema.TensorType.INT16


@pytest.mark.parametrize(
    ("code", "takes", "weights", "scales", "version"),
    [
        (Op.CONV_2D, FLOAT, INT8, 1, 2),
        (Op.CONV_2D, FLOAT, INT8, 4, 5),
        (Op.CONV_2D, INT16, INT8, 4, 4),
        (Op.DEPTHWISE_CONV_2D, FLOAT, INT8, 1, 4),
        (Op.DEPTHWISE_CONV_2D, FLOAT, INT8, 4, 6),
        (Op.DEPTHWISE_CONV_2D, INT16, INT8, 4, 5),
        (Op.FULLY_CONNECTED, FLOAT, INT8, 1, 3),
        (Op.FULLY_CONNECTED, FLOAT, INT8, 4, 12),
        (Op.FULLY_CONNECTED, INT8, INT4, 4, 10),
        (Op.FULLY_CONNECTED, INT16, INT8, 4, 7),
        (Op.DEQUANTIZE, HALF, FLOAT, 1, 3),
        (Op.DEQUANTIZE, INT4, FLOAT, 1, 6),
        (Op.QUANTIZE, FLOAT, INT16, 1, None),
        (Op.ADD, INT16, INT16, 1, 3),
        (Op.SUB, INT16, INT16, 1, 5),
        (Op.DIV, INT8, INT8, 1, None),
    ],
)
def test_versions_by_the_types_of_tensors(
    code: int, takes: int, weights: int, scales: int, version: int | None
) -> None:
    tensors = of_types(takes, weights, takes, takes, scales=scales)
    operator = schema.OperatorT(inputs=[0, 1, 2], outputs=[3])
    assert version_of(code, operator, tensors) == version


def test_a_shape_is_asked_of_a_tensor_of_any_type() -> None:
    types = [schema.TensorType.FLOAT32, schema.TensorType.INT8, schema.TensorType.INT16]
    operator = schema.OperatorT(inputs=[0], outputs=[1])
    made = schema.TensorT(type=schema.TensorType.INT32)
    found = {version_of(Op.SHAPE, operator, [schema.TensorT(type=one), made]) for one in types}
    assert found == {1}
