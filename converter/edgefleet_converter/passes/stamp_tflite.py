"""Operator versions of a TFLite file that was quantized, and the names and shapes of its border.

The versions are those of `tflite_versions`. An operator that the quantizer left alone keeps the
version that it came with. Two uses of one operator that need different versions get an entry each.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.passes.tflite_versions import NAMES, version_of

Known: TypeAlias = Mapping[tuple[int, tuple[int, ...], bytes], int]
"""The versions of a source, by operator, types of its tensors and the name of what it gives."""


def stamp(model: Any, *, like: Any) -> None:
    """Stamp versions into a quantized `ModelT`; its border gets the names and shapes of `like`.

    Raises:
        OperatorError: an operator whose versions are not known here.
    """
    stamp_versions(model, known_of(like))
    graph, origin = model.subgraphs[0], like.subgraphs[0]
    for mine, theirs in ((graph.inputs, origin.inputs), (graph.outputs, origin.outputs)):
        for index, old in zip(mine, theirs, strict=True):
            _name(graph, index, origin.tensors[old].name)
            graph.tensors[index].shapeSignature = origin.tensors[old].shapeSignature


def stamp_versions(model: Any, known: Known | None = None) -> None:
    """Stamp the versions alone; those of `known` where this module knows none.

    Raises:
        OperatorError: an operator whose versions are not known here or there.
    """
    codes = model.operatorCodes
    found: dict[tuple[int, int, object], int] = {}
    fresh: list[Any] = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = codes[operator.opcodeIndex]
            builtin = code.builtinCode
            version = version_of(builtin, operator, graph.tensors)
            if version is None:
                version = (known or {}).get(_use(code, operator, graph.tensors))
            if version is None:
                kind = graph.tensors[operator.inputs[0]].type
                raise OperatorError(
                    f"{NAMES.get(builtin, builtin)} on tensors of type {kind}: version not known"
                )
            key = (builtin, version, code.customCode)
            if key not in found:
                found[key] = len(fresh)
                fresh.append(copy.copy(code))
                fresh[-1].version = version
            operator.opcodeIndex = found[key]
    model.operatorCodes = fresh


def known_of(model: Any) -> Known:
    """The versions that a file has, as it came."""
    found = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            found[_use(code, operator, graph.tensors)] = code.version
    return found


def _use(code: Any, operator: Any, tensors: list[Any]) -> tuple[int, tuple[int, ...], bytes]:
    used = [*operator.inputs, *operator.outputs]
    types = tuple(tensors[index].type if index >= 0 else -1 for index in used)
    name = tensors[operator.outputs[0]].name if len(operator.outputs) else b""
    return code.builtinCode, types, name or b""


def _name(graph: Any, index: int, name: bytes) -> None:
    """Name a tensor; another of that name steps aside."""
    for tensor in graph.tensors:
        if tensor.name == name and tensor is not graph.tensors[index]:
            tensor.name = name + b".int8"
    graph.tensors[index].name = name
