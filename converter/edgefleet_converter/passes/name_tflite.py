"""A TFLite file that a framework wrote, with the names and the order that its ONNX twin has.

Clients send the same whichever variant a device runs, and a runtime knows tensors by their names in
the file. Which tensor is which is told by the file's signature. A worker task.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_file import parse, serialize


def rename(*, takes: list[str], gives: list[str]) -> dict[str, Json]:
    """`model.tflite` from `exported.tflite`, its tensors named and ordered as given.

    A signature's entries belong to the names by name, else in their order: `args_0`, `args_1`, ….

    Raises:
        OperatorError: it has no signature, or takes or gives another number of tensors.
    """
    model = parse(Path("exported.tflite").read_bytes())
    if not model.signatureDefs or len(model.subgraphs) < 1:
        raise OperatorError("the TFLite file has no signature: what it takes has no names")
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    graph.inputs = _name(graph, signature.inputs, takes)
    graph.outputs = _name(graph, signature.outputs, gives)
    model.metadata = []  # of the converter: versions and shapes of its own
    model.metadataBuffer = None
    Path("model.tflite").write_bytes(serialize(model))
    return {}


def _name(graph: Any, maps: list[Any], names: list[str]) -> list[int]:
    """The tensors of the names, which they have from now on."""
    if len(maps) != len(names):
        raise OperatorError(
            f"the TFLite file has {len(maps)} tensors where the model has {', '.join(names)}"
        )
    known = {entry.name.decode(): entry for entry in maps}
    if set(known) != set(names):
        ordered = sorted(known, key=_number)
        known = {name: known[old] for name, old in zip(names, ordered, strict=True)}
    for name in names:
        index, raw = known[name].tensorIndex, name.encode()
        for other, tensor in enumerate(graph.tensors):
            if tensor.name == raw and other != index:
                tensor.name = raw + b".inner"
        graph.tensors[index].name = raw
        known[name].name = raw
    return [known[name].tensorIndex for name in names]


def _number(name: str) -> tuple[str, int]:
    """`args_10` after `args_9`."""
    stem, _, last = name.rpartition("_")
    return (stem, int(last)) if last.isdecimal() else (name, 0)
