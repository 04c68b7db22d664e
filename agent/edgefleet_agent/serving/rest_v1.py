"""TensorFlow Serving's REST bodies: JSON to tensors and back. Spec: docs/spec/api.md [api-3].

Row format (`instances`) and column format (`inputs`); `{"b64": …}` for bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np

from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_agent.runtime.slots import Bytes
from edgefleet_agent.serving.bodies import (
    BadBody,
    BadOutput,
    Served,
    check_text,
    dump_json,
    fits,
    is_finite,
    kind,
    load_json,
    names,
    split_calls,
    wrong_shape,
)
from edgefleet_agent.serving.question import SEQUENCE_KEYS, Question, SequenceAsk, read_sequence
from edgefleet_contract.bundle import TensorSpec

SIGNATURE: Final = "serving_default"
_KEYS: Final = frozenset({"instances", "inputs", "signature_name"})


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed body: what to run (several calls where the model's batch is fixed at 1), and how
    the answer is to be laid out."""

    calls: tuple[Tensors, ...]
    rows: bool
    count: int
    sequence: SequenceAsk | None = None


def read(body: Bytes, model: Served) -> Question:
    """What a body asks.

    Raises:
        BadBody: see `parse`.
    """
    request = parse(body, model.inputs)
    return Question(
        request.calls, lambda results: render(request, results, model.outputs), request.sequence
    )


def parse(body: Bytes, inputs: tuple[TensorSpec, ...]) -> Request:
    """The tensors that a body holds, in the dtypes that the model declares.

    Raises:
        BadBody: saying what was expected and what was found.
    """
    value = read_object(body, _KEYS, "'instances' or 'inputs'")
    if ("instances" in value) == ("inputs" in value):
        raise BadBody("expected exactly one of 'instances' (rows) and 'inputs' (columns)")
    rows = "instances" in value
    columns = _rows(value["instances"], inputs) if rows else _columns(value["inputs"], inputs)
    feeds = {spec.name: tensor(columns[spec.name], spec) for spec in inputs}
    count = _count(feeds, inputs) if rows else 0
    return Request(split_calls(feeds, inputs), rows, count, read_sequence(value))


def read_object(body: Bytes, keys: frozenset[str], expected: str) -> dict[str, Any]:
    """The object that a body is, for the only signature that there is.

    It has no other keys, but for those that name a sequence.

    Raises:
        BadBody: it is none, has others, or is for another.
    """
    value = load_json(body)
    if not isinstance(value, dict):
        raise BadBody(f"the body is {kind(value)}, expected an object with {expected}")
    unknown = sorted(value.keys() - keys - SEQUENCE_KEYS)
    if unknown:
        raise BadBody(f"unknown key {unknown[0]!r}, expected {expected}")
    if value.get("signature_name", SIGNATURE) not in (SIGNATURE, ""):
        raise BadBody(f"signature {value['signature_name']!r}, this model has {SIGNATURE!r}")
    return value


def render(request: Request, results: Tensors, outputs: tuple[TensorSpec, ...]) -> bytes:
    """The JSON body of an answer.

    Raises:
        BadOutput: NaN or infinity, which JSON has no word for, or outputs without a row each.
    """
    for spec in outputs:
        shape = results[spec.name].shape
        if request.rows and (not shape or shape[0] != request.count):
            raise BadOutput(
                f"output {spec.name!r} has shape {list(shape)} for {request.count} instances:"
                " ask in column format ('inputs')"
            )
    lists = {spec.name: _plain(results[spec.name], spec.name) for spec in outputs}
    (key, single) = ("predictions" if request.rows else "outputs", len(outputs) == 1)
    told: Any
    if single:
        told = lists[outputs[0].name]
    elif request.rows:
        told = [
            dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
        ]
    else:
        told = lists
    return dump_json({key: told}, results)


def read_answer(body: Bytes) -> Tensors:
    """The outputs in an answer that `render` made, by name; the only output is named "".

    Numbers are float64 or int64, text is in object arrays.
    """
    value = json.loads(bytes(body))
    outputs = value.get("predictions", value.get("outputs"))
    if "predictions" in value and outputs and _is_named(outputs[0]):
        outputs = {name: [row[name] for row in outputs] for name in outputs[0]}
    if not _is_named(outputs):
        outputs = {"": outputs}
    return {name: _array(items) for name, items in outputs.items()}


def _array(items: Any) -> Array:
    array = np.asarray(items)
    return array if array.dtype.kind in "fiub" else array.astype(object)


def _rows(rows: Any, inputs: tuple[TensorSpec, ...]) -> dict[str, list[Any]]:
    if not isinstance(rows, list):
        raise BadBody(f"'instances' is {kind(rows)}, expected a list")
    if not rows:
        raise BadBody("'instances' is empty")
    if not _is_named(rows[0]):
        if len(inputs) > 1:
            raise BadBody(f"each instance must be an object with {names(inputs)}")
        return {inputs[0].name: rows}
    columns: dict[str, list[Any]] = {spec.name: [] for spec in inputs}
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != columns.keys():
            found = ", ".join(map(repr, row)) if isinstance(row, dict) else kind(row)
            raise BadBody(f"instance {i} has {found or 'nothing'}, expected {names(inputs)}")
        for name, column in columns.items():
            column.append(row[name])
    return columns


def _columns(columns: Any, inputs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    if not _is_named(columns):
        if len(inputs) > 1:
            raise BadBody(f"'inputs' is {kind(columns)}, expected an object with {names(inputs)}")
        return {inputs[0].name: columns}
    if columns.keys() != {spec.name for spec in inputs}:
        found = ", ".join(map(repr, columns)) or "nothing"
        raise BadBody(f"'inputs' has {found}, expected {names(inputs)}")
    return dict(columns)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {"b64"}


def tensor(value: Any, spec: TensorSpec) -> Array:
    """The array that JSON lists hold, with any batch.

    Raises:
        BadBody: another dtype or shape.
    """
    array = _text(value, spec) if spec.dtype == "string" else _numbers(value, spec)
    if not fits(array.shape, spec):
        raise wrong_shape(spec, array.shape)
    return array


def _numbers(value: Any, spec: TensorSpec) -> Array:
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError):
        raise BadBody(f"input {spec.name!r} is ragged, expected shape {list(spec.shape)}") from None
    dtype = np.dtype(spec.dtype)
    allowed = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if found.dtype.kind not in allowed:
        if not found.size:
            return found.astype(dtype)
        raise BadBody(f"input {spec.name!r} holds {_content(found)}, expected {spec.dtype}")
    if dtype.kind != "b" and _holds_bool(value, found.ndim):
        raise BadBody(f"input {spec.name!r} holds true or false, expected {spec.dtype}")
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if found.size and (found.min() < bounds.min or found.max() > bounds.max):
            raise BadBody(
                f"input {spec.name!r} holds {found.min()} to {found.max()}, {spec.dtype} is"
                f" {bounds.min} to {bounds.max}"
            )
        return found.astype(dtype)
    with np.errstate(over="ignore"):
        array = found.astype(dtype)
    if not is_finite(array):
        raise BadBody(f"input {spec.name!r} holds a number too large for {spec.dtype}")
    return array


def _holds_bool(value: Any, depth: int) -> bool:
    """Whether there is one among the numbers: NumPy would make it 0 or 1."""
    flat = [value]
    for _ in range(depth):
        flat = list(chain.from_iterable(flat))
    return bool in set(map(type, flat))


def _text(value: Any, spec: TensorSpec) -> Array:
    """A string tensor as an object array, decoding `{"b64": …}` on the way."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if isinstance(node, str):
            return node
        if isinstance(node, dict) and node.keys() == {"b64"} and isinstance(node["b64"], str):
            try:
                return base64.b64decode(node["b64"], validate=True).decode()
            except UnicodeDecodeError:  # text is what the runtimes take
                raise BadBody(f"input {spec.name!r}: 'b64' does not hold UTF-8") from None
            except (binascii.Error, ValueError):
                raise BadBody(f"input {spec.name!r}: 'b64' is not base64") from None
        raise BadBody(f"input {spec.name!r} holds {kind(node)}, expected strings")

    tree = walk(value)
    shape: list[int] = []
    flat: list[Any] = [tree]
    while flat and all(isinstance(item, list) for item in flat):
        lengths = {len(item) for item in flat}
        if len(lengths) > 1:
            break
        shape.append(lengths.pop())
        flat = [part for item in flat for part in item]
    if any(isinstance(item, list) for item in flat):
        raise BadBody(f"input {spec.name!r} is ragged, expected shape {list(spec.shape)}")
    check_text(flat, spec.name)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def _count(feeds: Tensors, inputs: tuple[TensorSpec, ...]) -> int:
    counts = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    if len(counts) != 1:
        raise BadBody(f"{names(inputs)} differ in how many rows they hold")
    return counts.pop()


def _plain(array: Array, name: str) -> Any:
    if array.dtype.kind != "O":
        return array.tolist()
    as_base64 = name.endswith("_bytes")  # TensorFlow Serving's rule
    flat = np.empty(array.size, dtype=object)
    flat[:] = [_say(item, as_base64) for item in array.ravel()]
    return flat.reshape(array.shape).tolist()


def _say(item: str | bytes, as_base64: bool) -> Any:
    raw = item.encode() if isinstance(item, str) else item
    if as_base64:
        return {"b64": base64.b64encode(raw).decode()}
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(raw).decode()}


def _content(found: Array) -> str:
    if found.dtype.kind == "f" and np.abs(found).max() >= 2**63:  # what was an integer in JSON
        return "numbers too large"
    return {
        "b": "true or false",
        "f": "fractions",
        "U": "text",
        "O": "null, objects or numbers too large",
    }.get(found.dtype.kind, found.dtype.name)
