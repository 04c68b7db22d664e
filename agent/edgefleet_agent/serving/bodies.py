"""What the bodies of all protocols have in common: the model they are for, JSON, what is refused.

Pure, and run in the worker, since a body is a stranger's. What a client could have done better is a
`BadBody` that says what was expected and what was found.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_agent.runtime.slots import Bytes
from edgefleet_contract.bundle import TensorSpec

try:
    import orjson  # six times as fast; 32-bit boards have no wheels of it
except ImportError:  # pragma: no cover - where there is none
    orjson = None  # type: ignore[assignment]  # the standard library's does it alone


class BadBody(Exception):
    """The client's to mend: not JSON, not the format, not the shape or dtype of the inputs."""


class BadOutput(Exception):
    """The model's outputs cannot be told in the words that were asked for."""


@dataclass(frozen=True, slots=True)
class Served:
    """The model that a body is for. `labels` are its class names, or empty."""

    slot: str
    version: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()


def join_results(results: Sequence[Tensors], outputs: tuple[TensorSpec, ...]) -> Tensors:
    """The outputs of all calls, joined along the batch axis.

    Raises:
        BadOutput: one of several calls gave an output that has no such axis, or another shape.
    """
    if len(results) == 1:
        return results[0]
    joined: Tensors = {}
    for spec in outputs:
        parts = [result[spec.name] for result in results]
        if len({part.shape[1:] for part in parts}) > 1 or not parts[0].ndim:
            raise BadOutput(f"output {spec.name!r} cannot be joined over {len(parts)} rows")
        joined[spec.name] = np.concatenate(parts)
    return joined


def split_calls(feeds: Tensors, inputs: tuple[TensorSpec, ...]) -> tuple[Tensors, ...]:
    """One call, or one a row where every batch axis is fixed at 1 and there are more rows.

    Raises:
        BadBody: another batch is fixed.
    """
    sizes = {spec.name: (feeds[spec.name].shape[:1], spec.shape[:1]) for spec in inputs}
    if all(want in ((-1,), have) for have, want in sizes.values()):
        return (feeds,)
    counts = {have for have, _ in sizes.values()}
    if len(counts) == 1 and all(want == (1,) for _, want in sizes.values()):
        (count,) = counts.pop()
        if count:
            return tuple({n: a[i : i + 1] for n, a in feeds.items()} for i in range(count))
    spec = next(s for s in inputs if sizes[s.name][1] not in ((-1,), sizes[s.name][0]))
    raise wrong_shape(spec, feeds[spec.name].shape)


def fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    """Whether rank and sizes agree, but for the batch axis."""
    return len(shape) == len(spec.shape) and all(
        want in (-1, have) for have, want in zip(shape[1:], spec.shape[1:], strict=True)
    )


def wrong_shape(spec: TensorSpec, found: tuple[int, ...]) -> BadBody:
    """The refusal of a shape."""
    return BadBody(f"input {spec.name!r} has shape {list(found)}, expected {list(spec.shape)}")


def load_json(body: Bytes | str) -> Any:
    """The JSON value of a body.

    Raises:
        BadBody: it is none, or says NaN or infinity.
    """
    if orjson is not None:
        with contextlib.suppress(ValueError):  # then the other says in our words what is wrong
            return orjson.loads(body)
    try:
        text = str(body, "utf-8") if isinstance(body, memoryview) else body
        return json.loads(text, parse_constant=_no_constant)
    except BadBody:
        raise
    except RecursionError:
        raise BadBody("the body is nested too deep") from None
    except ValueError as found:  # JSONDecodeError and UnicodeDecodeError are
        raise BadBody(f"the body is not JSON: {found}") from None


def dump_json(value: Any, outputs: Tensors) -> bytes:
    """The JSON of an answer that tells these outputs.

    Raises:
        BadOutput: NaN or infinity, which JSON has no word for.
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        bad = next(name for name, array in outputs.items() if not is_finite(array))
        raise BadOutput(f"output {bad!r} holds NaN or infinity, which JSON cannot say") from None


def error(message: str) -> bytes:
    """The body of a refusal, the same in all protocols."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")


def check_text(texts: Iterable[str], name: str) -> None:
    """JSON may hold halves of characters (`"\\ud800"`), which no runtime takes.

    Raises:
        BadBody: it does.
    """
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise BadBody(f"input {name!r} holds text that is not Unicode") from None


def is_finite(array: Array) -> bool:
    """Whether there is neither NaN nor infinity."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    words = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return words.get(type(value), "a number")


def names(specs: tuple[TensorSpec, ...]) -> str:
    """Their names, in words."""
    return ", ".join(repr(spec.name) for spec in specs)


def _no_constant(name: str) -> NoReturn:
    raise BadBody(f"{name} is not JSON")
