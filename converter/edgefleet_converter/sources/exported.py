"""ONNX as a framework exported it: named plainly, without traces of where it was made.

Used inside the toolchain's worker, so it needs onnx and numpy alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, Final

import numpy as np

from edgefleet_contract.errors import OperatorError
from edgefleet_converter.arrays import Array, Arrays

OPSET: Final = 18
"""What is asked of exporters. That of PyTorch writes 18 at least, whatever it is asked for."""

ROWS: Final = 32  # examples a call of the source


_COUNTED: Final = re.compile(r"(.*)__\d+((?::\d+)?)", re.DOTALL)


def clean(model: Any) -> None:
    """Take out what exporters write of their own: stack traces with paths, documentation.

    Raises:
        OperatorError: the opset is another one than was asked for.
    """
    found = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=0)
    if found != OPSET:
        raise OperatorError(f"the exporter wrote opset {found}, and {OPSET} was asked for")
    model.doc_string = ""
    model.ClearField("metadata_props")
    for function in model.functions:
        _strip(function)
        for node in function.node:
            _strip(node)
    for graph in graphs(model.graph):
        _strip(graph)
        for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            _strip(part)
        graph.ClearField("value_info")
    _number_anew(model.graph)


def _number_anew(whole: Any) -> None:
    """Count `stem__7` up in the order of use, and put constants into it.

    tf2onnx counts such names while it folds constants in an order that differs from run to run;
    with other names the same model would be another file.
    """
    fixed = {value.name for value in (*whole.input, *whole.output)}
    anew: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for graph in graphs(whole):
        for node in graph.node:
            for name in (*node.input, *node.output, node.name):
                found = _COUNTED.fullmatch(name)
                if found and name not in anew and name not in fixed:
                    stem, port = found.groups()
                    counts[stem, port] += 1
                    anew[name] = f"{stem}__{counts[stem, port]}{port}"
    used: dict[str, int] = {}
    for graph in graphs(whole):
        for node in graph.node:
            node.name = anew.get(node.name, node.name)
            for names in (node.input, node.output):
                names[:] = [anew.get(name, name) for name in names]
            for name in node.input:
                used.setdefault(name, len(used))
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = anew.get(value.name, value.name)
    for graph in graphs(whole):
        ordered = sorted(
            graph.initializer, key=lambda one: (used.get(one.name, len(used)), one.name)
        )
        copies = [type(one).FromString(one.SerializeToString()) for one in ordered]
        graph.ClearField("initializer")
        graph.initializer.extend(copies)


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from graphs(inner)


def keep_only(graph: Any, output: str) -> None:
    """Drop the other outputs, and the nodes that nothing needs any more."""
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    kept.reverse()
    outputs = [value for value in graph.output if value.name == output]
    constants = [value for value in graph.initializer if value.name in needed]
    for field, items in (("node", kept), ("output", outputs), ("initializer", constants)):
        graph.ClearField(field)
        getattr(graph, field).extend(items)


def rename(graph: Any, old: str, new: str) -> None:
    """Give a tensor another name, in inner graphs as well; another of that name steps aside."""
    if old == new:
        return
    if any(new in (*node.input, *node.output) for inner in graphs(graph) for node in inner.node):
        rename(graph, new, f"{new}.inner")
    for inner in graphs(graph):
        for node in inner.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new
        for value in (*inner.input, *inner.output, *inner.value_info, *inner.initializer):
            if value.name == old:
                value.name = new


def rename_outputs(graph: Any, names: Sequence[str]) -> None:
    """Give the outputs these names."""
    for value, name in zip(list(graph.output), names, strict=True):
        rename(graph, value.name, name)


def name_batch(graph: Any) -> None:
    """Call the first dimension of inputs and outputs `batch` where it varies."""
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_param = "batch"


def answer_all(call: Callable[[Arrays], Arrays], inputs: Arrays, batch: int | None) -> Arrays:
    """What a source says to examples, asked so many at a time; the last call is filled up.

    Args:
        call: the outputs for one batch.
        inputs: each [N, …].
        batch: the size that it takes; None where it varies.

    Raises:
        OperatorError: an output does not count examples in its first dimension.
    """
    size = batch or min(ROWS, max(2, len(inputs[0])))
    parts: list[Arrays] = []
    for start in range(0, len(inputs[0]), size):
        rows = min(size, len(inputs[0]) - start)
        given = call(tuple(fill(array[start : start + size], size) for array in inputs))
        for index, output in enumerate(given):
            if output.ndim == 0 or len(output) != size:
                raise OperatorError(
                    f"output {index} has shape {list(output.shape)} for {size} examples: its "
                    "first dimension does not count them"
                )
        parts.append(tuple(output[:rows] for output in given))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def fill(array: Array, size: int) -> Array:
    """So many rows: those of the array, again from its start where it has fewer."""
    return array[np.arange(size) % len(array)]


def tools(*names: str) -> dict[str, str]:
    """The versions of packages that are installed here."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _strip(part: Any) -> None:
    part.doc_string = ""
    part.ClearField("metadata_props")
