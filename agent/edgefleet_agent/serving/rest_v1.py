"""TensorFlow Serving's REST bodies: JSON to tensors and back. Spec: docs/spec/api.md [api-3].

Pure, and run in the worker, since a body is a stranger's. Row format (`instances`) and column
format (`inputs`); `{"b64": …}` for bytes. What a client could have done better is a `BadBody` that
says what was expected and what was found.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_contract.bundle import TensorSpec

SIGNATURE: Final = "serving_default"
_KEYS: Final = frozenset({"instances", "inputs", "signature_name"})


class BadBody(Exception):
    """The client's to mend: not JSON, not the format, not the shape or dtype of the inputs."""


class BadOutput(Exception):
    """The model's outputs cannot be told in JSON, or not in rows."""


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed body: what to run (several calls where the model's batch is fixed at 1), and how
    the answer is to be laid out."""

    calls: tuple[Tensors, ...]
    rows: bool
    count: int


def parse(body: bytes, inputs: tuple[TensorSpec, ...]) -> Request:
    """The tensors that a body holds, in the dtypes that the model declares.

    Raises:
        BadBody: saying what was expected and what was found.
    """
    value = _load(body)
    if not isinstance(value, dict):
        raise BadBody(
            f"the body is {_kind(value)}, expected an object with 'instances' or 'inputs'"
        )
    unknown = sorted(value.keys() - _KEYS)
    if unknown:
        raise BadBody(f"unknown key {unknown[0]!r}, expected 'instances' or 'inputs'")
    if ("instances" in value) == ("inputs" in value):
        raise BadBody("expected exactly one of 'instances' (rows) and 'inputs' (columns)")
    if value.get("signature_name", SIGNATURE) not in (SIGNATURE, ""):
        raise BadBody(f"signature {value['signature_name']!r}, this model has {SIGNATURE!r}")
    rows = "instances" in value
    columns = _rows(value["instances"], inputs) if rows else _columns(value["inputs"], inputs)
    feeds = {spec.name: _tensor(columns[spec.name], spec) for spec in inputs}
    count = _count(feeds, inputs) if rows else 0
    return Request(_calls(feeds, inputs), rows, count)


def render(request: Request, results: list[Tensors], outputs: tuple[TensorSpec, ...]) -> bytes:
    """The JSON body of an answer.

    Raises:
        BadOutput: NaN or infinity, which JSON has no word for, or outputs without a row each.
    """
    merged = {
        spec.name: results[0][spec.name]
        if len(results) == 1
        else np.concatenate([result[spec.name] for result in results])
        for spec in outputs
    }
    for name, array in merged.items():
        if request.rows and (not array.ndim or array.shape[0] != request.count):
            raise BadOutput(
                f"output {name!r} has shape {list(array.shape)} for {request.count} instances:"
                " ask in column format ('inputs')"
            )
    lists = {name: _plain(array, name) for name, array in merged.items()}
    (key, single) = ("predictions" if request.rows else "outputs", len(outputs) == 1)
    answer: Any
    if single:
        answer = lists[outputs[0].name]
    elif request.rows:
        answer = [
            dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
        ]
    else:
        answer = lists
    try:
        return json.dumps({key: answer}, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        bad = next(name for name, array in merged.items() if not _finite(array))
        raise BadOutput(f"output {bad!r} holds NaN or infinity, which JSON cannot say") from None


def read_answer(body: bytes) -> Tensors:
    """The outputs in an answer that `render` made, by name; the only output is named "".

    Numbers are float64 or int64, text is in object arrays.
    """
    value = json.loads(body)
    outputs = value.get("predictions", value.get("outputs"))
    if "predictions" in value and outputs and _is_named(outputs[0]):
        outputs = {name: [row[name] for row in outputs] for name in outputs[0]}
    if not _is_named(outputs):
        outputs = {"": outputs}
    return {name: _array(items) for name, items in outputs.items()}


def _array(items: Any) -> Array:
    array = np.asarray(items)
    return array if array.dtype.kind in "fiub" else array.astype(object)


def error(message: str) -> bytes:
    """The body of a refusal, as TensorFlow Serving words it."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")


def _load(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_constant)
    except BadBody:
        raise
    except RecursionError:
        raise BadBody("the body is nested too deep") from None
    except ValueError as found:  # JSONDecodeError and UnicodeDecodeError are
        raise BadBody(f"the body is not JSON: {found}") from None


def _no_constant(name: str) -> NoReturn:
    raise BadBody(f"{name} is not JSON")


def _rows(rows: Any, inputs: tuple[TensorSpec, ...]) -> dict[str, list[Any]]:
    if not isinstance(rows, list):
        raise BadBody(f"'instances' is {_kind(rows)}, expected a list")
    if not rows:
        raise BadBody("'instances' is empty")
    if not _is_named(rows[0]):
        if len(inputs) > 1:
            raise BadBody(f"each instance must be an object with {_names(inputs)}")
        return {inputs[0].name: rows}
    columns: dict[str, list[Any]] = {spec.name: [] for spec in inputs}
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != columns.keys():
            found = ", ".join(map(repr, row)) if isinstance(row, dict) else _kind(row)
            raise BadBody(f"instance {i} has {found or 'nothing'}, expected {_names(inputs)}")
        for name, column in columns.items():
            column.append(row[name])
    return columns


def _columns(columns: Any, inputs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    if not _is_named(columns):
        if len(inputs) > 1:
            raise BadBody(f"'inputs' is {_kind(columns)}, expected an object with {_names(inputs)}")
        return {inputs[0].name: columns}
    names = {spec.name for spec in inputs}
    if columns.keys() != names:
        found = ", ".join(map(repr, columns)) or "nothing"
        raise BadBody(f"'inputs' has {found}, expected {_names(inputs)}")
    return dict(columns)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {"b64"}


def _tensor(value: Any, spec: TensorSpec) -> Array:
    array = _text(value, spec) if spec.dtype == "string" else _numbers(value, spec)
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, have) for have, want in zip(array.shape[1:], spec.shape[1:], strict=True)
    )
    if not fits:
        raise BadBody(f"input {spec.name!r} has shape {list(array.shape)}, expected {_shape(spec)}")
    return array


def _numbers(value: Any, spec: TensorSpec) -> Array:
    try:
        found = np.asarray(value)
    except (ValueError, OverflowError):
        raise BadBody(f"input {spec.name!r} is ragged, expected shape {_shape(spec)}") from None
    dtype = np.dtype(spec.dtype)
    allowed = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if found.dtype.kind not in allowed:
        if not found.size:
            return found.astype(dtype)
        raise BadBody(f"input {spec.name!r} holds {_content(found)}, expected {spec.dtype}")
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
    if not _finite(array):
        raise BadBody(f"input {spec.name!r} holds a number too large for {spec.dtype}")
    return array


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
        raise BadBody(f"input {spec.name!r} holds {_kind(node)}, expected strings")

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
        raise BadBody(f"input {spec.name!r} is ragged, expected shape {_shape(spec)}")
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def _count(feeds: Tensors, inputs: tuple[TensorSpec, ...]) -> int:
    counts = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    if len(counts) != 1:
        raise BadBody(f"{_names(inputs)} differ in how many rows they hold")
    return counts.pop()


def _calls(feeds: Tensors, inputs: tuple[TensorSpec, ...]) -> tuple[Tensors, ...]:
    """One call, or one a row where every batch axis is fixed at 1 and there are more rows."""
    sizes = {spec.name: (feeds[spec.name].shape[:1], spec.shape[:1]) for spec in inputs}
    if all(want in ((-1,), have) for have, want in sizes.values()):
        return (feeds,)
    counts = {have for have, _ in sizes.values()}
    if len(counts) == 1 and all(want == (1,) for _, want in sizes.values()):
        (count,) = counts.pop()
        if count:
            return tuple({n: a[i : i + 1] for n, a in feeds.items()} for i in range(count))
    spec = next(s for s in inputs if sizes[s.name][1] not in ((-1,), sizes[s.name][0]))
    found = list(feeds[spec.name].shape)
    raise BadBody(f"input {spec.name!r} has shape {found}, expected {_shape(spec)}")


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


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _shape(spec: TensorSpec) -> list[int]:
    return list(spec.shape)


def _names(inputs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(repr(spec.name) for spec in inputs)


def _content(found: Array) -> str:
    return {
        "b": "true or false",
        "f": "fractions",
        "U": "text",
        "O": "null, objects or numbers too large",
    }.get(found.dtype.kind, found.dtype.name)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    words = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return words.get(type(value), "a number")
