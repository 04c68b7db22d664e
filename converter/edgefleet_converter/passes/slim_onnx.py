"""What nobody computes with is taken out of an int8 ONNX file: a tenth of a small one.

Names of inner tensors become short, names of nodes and recorded shapes go, constants that are equal
become one. The names of the graph's inputs and outputs stay. A graph in a graph may use names of
the outer one: a model that has one is left alone.
"""

from __future__ import annotations

from typing import Final

from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_INNER: Final = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def slim(model: ModelProto) -> None:
    """Make the file smaller in place; it computes the same, bit for bit."""
    graph = model.graph
    inner = any(one.type in _INNER for node in graph.node for one in node.attribute)
    if inner or model.functions or graph.sparse_initializer:
        return
    graph.ClearField("value_info")
    graph.ClearField("doc_string")
    names = _Names({value.name for value in (*graph.input, *graph.output)}, _share(model))
    for tensor in graph.initializer:
        tensor.name = names.short(tensor.name)
        tensor.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        node.input[:] = [names.short(name) for name in node.input]
        node.output[:] = [names.short(name) for name in node.output]


class _Names:
    """Short names, counted in the order in which they are asked for."""

    def __init__(self, kept: set[str], same: dict[str, str]) -> None:
        self._kept, self._same = kept, same
        self._short: dict[str, str] = {}
        self._next = 0

    def short(self, name: str) -> str:
        name = self._same.get(name, name)
        if not name or name in self._kept:
            return name
        while name not in self._short:
            tried = _counted(self._next)
            self._next += 1
            if tried not in self._kept:
                self._short[name] = tried
        return self._short[name]


def _counted(number: int) -> str:
    """A number in base 36, after an underscore.

    >>> _counted(0), _counted(36)
    ('_0', '_10')
    """
    text = ""
    while True:
        text, number = _DIGITS[number % 36] + text, number // 36
        if not number:
            return f"_{text}"


def _share(model: ModelProto) -> dict[str, str]:
    """Drop constants that another one equals; which name stands for which.

    Those that are an input or an output of the graph are not touched.
    """
    graph = model.graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    kept: list[TensorProto] = []
    for tensor in graph.initializer:
        if tensor.name not in ends and tensor.data_type != TensorProto.STRING:
            key = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
            if key in first:
                same[tensor.name] = first[key]
                continue
            first[key] = tensor.name
        copy = TensorProto()
        copy.CopyFrom(tensor)
        kept.append(copy)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return same
