from __future__ import annotations

import pytest
from ai_edge_litert import schema_py_generated as schema

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.stamp_tflite import version_of
from edgefleet_converter.passes.tflite_file import parse
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
    operator = schema.OperatorT(inputs=[0], outputs=[0])
    tensors = [schema.TensorT(type=schema.TensorType.INT8)]
    with pytest.raises(OperatorError, match="version not known"):
        version_of(Op.LSTM, operator, tensors)
    with pytest.raises(OperatorError, match="version not known"):
        version_of(Op.ADD, operator, [schema.TensorT(type=schema.TensorType.INT16)])
