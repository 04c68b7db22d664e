"""ONNX in: checked, tidied, and stamped so that the oldest runtime that we name loads it.

A worker task. Only plain operator domains come in; weights in other files do not, since a device
loads a model from its bytes alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, version_converter

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.fold_affine import fold_affine
from edgefleet_converter.passes.plain_ml import say_plainly

OLDEST_RUNTIME: Final = "1.19.0"
"""onnxruntime that loads what `tidy` writes: opset 21 and IR version 10 are its newest."""

NEWEST_OPSET: Final = 21
NEWEST_IR: Final = 10
OLDEST_OPSET: Final = 13  # per-channel DequantizeLinear begins here
BASE_OPSET: Final = 17
STRUCTURED: Final = "edgefleet.prune.structured"
"""The metadata that says how channels were cut: the table of the recipe, as JSON."""

_QUANTIZED: Final = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"}
)
DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")


def tidy(*, slim: bool = True) -> dict[str, Json]:
    """`model.onnx` from `source`: same function, fewer nodes, known versions.

    Returns `inputs` and `outputs`: their names, and `labels`: class names from the model's
    metadata, if any. `structured` says how its channels were cut, if `prune_torch` did it. Without
    `slim` no node is dropped but the idle affine ones.
    """
    model = parse(Path("source").read_bytes())
    cut = next((one.value for one in model.metadata_props if one.key == STRUCTURED), "")
    _check(model)
    _refuse_foreign(model)
    _import_once(model)
    model = _convert_opset(model)
    say_plainly(model)
    if slim:
        model = _slim(model)
    fold_affine(model)
    _name_batch(model)
    model.ir_version = min(max(model.ir_version, 8), NEWEST_IR)
    _check(model)
    onnx.save(model, "model.onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs: list[Json] = [v.name for v in model.graph.input if v.name not in weights]
    outputs: list[Json] = [v.name for v in model.graph.output]
    return {
        "labels": list(_labels(model)),
        "inputs": inputs,
        "outputs": outputs,
        "structured": cut,
    }


def read() -> dict[str, Json]:
    """The names of what `source` takes and gives, its class names, and whether it is int8.

    For a file that is packed as it is: it must be one that the oldest runtime loads.

    Raises:
        OperatorError: it is not, or needs other files or operators of others.
    """
    model = parse(Path("source").read_bytes())
    _check(model)
    _refuse_foreign(model)
    found = max((e.version for e in model.opset_import if e.domain in DOMAINS[:2]), default=0)
    if found > NEWEST_OPSET or model.ir_version > NEWEST_IR:
        raise OperatorError(
            f"opset {found} and IR version {model.ir_version} need a newer runtime than "
            f"onnxruntime {OLDEST_RUNTIME}",
            hint=f"export it with opset {NEWEST_OPSET} and IR version {NEWEST_IR} at most",
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        "labels": list(_labels(model)),
        "inputs": [v.name for v in model.graph.input if v.name not in weights],
        "outputs": [v.name for v in model.graph.output],
        "is_int8": any(node.op_type in _QUANTIZED for node in model.graph.node),
    }


def parse(raw: bytes) -> ModelProto:
    """The model in bytes.

    Raises:
        OperatorError: they are not a whole ONNX model, or its weights are in other files.
    """
    try:
        model = onnx.load_model_from_string(raw)
    except DecodeError as error:
        raise OperatorError(
            f"the file is not a readable ONNX model ({error})",
            hint="it may be truncated: compare its size with the original",
        ) from None
    if not model.graph.node:
        raise OperatorError("the ONNX model has no operators")
    for tensor in model.graph.initializer:  # before ONNX' checker, which calls that not valid
        if tensor.data_location == TensorProto.EXTERNAL:
            raise OperatorError(
                f"the weights of {tensor.name!r} are in another file",
                hint="save it as one file: onnx.save(model, path, save_as_external_data=False)",
            )
    return model


def _check(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        text = " ".join(str(error).split())[:300]
        raise OperatorError(f"the ONNX model is not valid: {text}") from None


def _refuse_foreign(model: ModelProto) -> None:
    strangers = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in DOMAINS}
    )
    if strangers or model.functions:
        names = ", ".join([*strangers, *(function.name for function in model.functions)])
        raise OperatorError(
            f"operators outside of ONNX: {names}",
            hint=f"domains that come in: {', '.join(name or 'ai.onnx' for name in DOMAINS[1:])}",
        )
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in weights and value.type.WhichOneof("value") != "tensor_type":
            raise OperatorError(f"input {value.name!r} is not a tensor")


def _import_once(model: ModelProto) -> None:
    """Name each domain once, with a version for ONNX' own: skl2onnx writes it twice or not at all,
    which quantizers refuse."""
    versions = {"": BASE_OPSET}
    for entry in model.opset_import:
        versions["" if entry.domain == "ai.onnx" else entry.domain] = entry.version
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*item) for item in versions.items())


def _convert_opset(model: ModelProto) -> ModelProto:
    found = next((entry.version for entry in model.opset_import if entry.domain in DOMAINS[:2]), 0)
    if OLDEST_OPSET <= found <= NEWEST_OPSET or found == 0:
        return model
    wanted = NEWEST_OPSET if found > NEWEST_OPSET else BASE_OPSET
    try:
        return version_converter.convert_version(model, wanted)
    except RuntimeError as error:
        text = " ".join(str(error).split())[-200:]
        raise OperatorError(
            f"opset {found} does not convert to {wanted}: {text}",
            hint=f"export the model with an opset of {OLDEST_OPSET} to {NEWEST_OPSET}",
        ) from None


def _slim(model: ModelProto) -> ModelProto:
    """The model without dead, constant and do-nothing nodes, where onnxslim manages it."""
    import onnxslim

    _drop_idle_casts(model)
    try:
        slim = onnxslim.slim(model)
    except Exception:  # noqa: BLE001 - an optional tidy-up: the model works without it
        return model
    return slim if isinstance(slim, ModelProto) and slim.graph.node else model


def _drop_idle_casts(model: ModelProto) -> None:
    """Turn a Cast to the type that its input has already into an Identity."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.input)
    }
    for node in model.graph.node:
        if node.op_type == "Cast" and kinds.get(node.input[0]) == node.attribute[0].i:
            node.op_type = "Identity"
            node.ClearField("attribute")


def _name_batch(model: ModelProto) -> None:
    """Name an unnamed first dimension, so that every tool sees that it varies."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name in weights or not dims:
            continue
        if not dims[0].HasField("dim_value") and dims[0].dim_param in ("", "?"):
            dims[0].dim_param = "batch"


def _labels(model: ModelProto) -> list[str]:
    """Class names in the metadata, as exporters write them: one a line, or by commas."""
    for entry in model.metadata_props:
        if entry.key.lower() in ("labels", "classes", "class_names", "names"):
            text = entry.value.strip()
            lines = text.splitlines() if "\n" in text else text.split(",")
            return [line.strip() for line in lines if line.strip()]
    return []
