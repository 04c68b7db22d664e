"""What a model file asks of a runtime: its operators, with their versions. A worker task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgefleet_contract.bundle import Format
from edgefleet_contract.canonical import Json


def read(*, format: str) -> dict[str, Json]:  # noqa: A002 - the manifest's word
    """The operators of `model`: `node` (its name), `op`, `version`; with `opset` and `ir`.

    The version of an ONNX operator is the opset that it is of since; opset and IR version are 0 for
    TFLite, where a node is called what it gives.
    """
    return _onnx() if Format(format) is Format.ONNX else operators_of(Path("model"))


def _onnx() -> dict[str, Json]:
    import onnx

    model = onnx.load("model", load_external_data=False)
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    operators: list[Json] = []
    for node in model.graph.node:
        domain = node.domain or "ai.onnx"
        newest = opsets.get(domain, 1)
        try:
            since = onnx.defs.get_schema(node.op_type, newest, node.domain).since_version
        except onnx.defs.SchemaError:
            since = newest  # of a domain that onnx does not know
        version = since if domain == "ai.onnx" else 0  # opsets of others count by themselves
        operators.append({"node": node.name, "op": node.op_type, "version": version})
    return {
        "operators": operators,
        "opset": opsets.get("ai.onnx", 0),
        "ir": model.ir_version,
    }


def operators_of(path: Path) -> dict[str, Json]:
    """As `read`, of a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    from edgefleet_converter.passes.tflite_versions import NAMES

    root: Any = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    operators: list[Json] = []
    for graph in root.subgraphs:
        for operator in graph.operators:
            code = root.operatorCodes[operator.opcodeIndex]
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            node = graph.tensors[operator.outputs[0]].name if len(operator.outputs) else b""
            operators.append(
                {
                    "node": (node or b"").decode("utf-8", "replace"),
                    "op": NAMES.get(builtin, str(builtin)),
                    "version": code.version,
                }
            )
    return {"operators": operators, "opset": 0, "ir": 0}
