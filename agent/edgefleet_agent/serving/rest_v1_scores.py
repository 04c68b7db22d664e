"""TensorFlow Serving's `:classify` and `:regress`: examples in, scores by class name out. [api-3]

For models whose declared tensors say so: one float input, and one float output that holds a score
for each class (classify) or one number (regress) a row. Other outputs are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_agent.runtime.slots import Bytes
from edgefleet_agent.serving.bodies import (
    BadBody,
    BadOutput,
    Served,
    dump_json,
    kind,
    split_calls,
)
from edgefleet_agent.serving.question import Question, read_sequence
from edgefleet_agent.serving.rest_v1 import read_object, tensor
from edgefleet_contract.bundle import TensorSpec

_KEYS: Final = frozenset({"examples", "context", "signature_name"})


def classify(body: Bytes, model: Served) -> Question:
    """Asks for `{"result": [[[label, score], …], …]}`: the classes of each example, in the model's
    order.

    A class without a name is named by an empty string, as TensorFlow Serving has it. Another number
    of classes than names, or a score that JSON cannot say, cannot be told.

    Raises:
        BadBody: not such a model, or not such a body.
    """
    output = class_scores(model)
    if output is None:
        raise BadBody(_not_for(model, "classify", "scores of two classes or more"))

    def tell(scores: Array) -> bytes:
        labels = model.labels or ("",) * scores.shape[1]
        if len(labels) != scores.shape[1]:
            raise BadOutput(f"{scores.shape[1]} scores for {len(labels)} labels")
        told = [[[*pair] for pair in zip(labels, row, strict=True)] for row in scores.tolist()]
        return dump_json({"result": told}, {output.name: scores})

    return _examination(body, model, output, tell)


def regress(body: Bytes, model: Served) -> Question:
    """Asks for `{"result": [number, …]}`: one of each example.

    Raises:
        BadBody: not such a model, or not such a body.
    """
    output = regression(model)
    if output is None:
        raise BadBody(_not_for(model, "regress", "one number a row"))

    def tell(scores: Array) -> bytes:
        values = scores[:, 0]
        return dump_json({"result": values.tolist()}, {output.name: values})

    return _examination(body, model, output, tell)


def read_scores(body: Bytes) -> Tensors:
    """The scores [N, C] or numbers [N] of an answer, under the name ""."""
    result = json.loads(bytes(body))["result"]
    if result and isinstance(result[0], list):
        result = [[score for _, score in example] for example in result]
    return {"": np.asarray(result)}


def class_scores(model: Served) -> TensorSpec | None:
    """The output that holds class scores, if the model is a classifier."""
    output = _only_float(model.outputs)
    if output is None or not _takes_features(model) or len(output.shape) != 2:
        return None
    return None if output.shape[1] in (0, 1) else output


def regression(model: Served) -> TensorSpec | None:
    """The output that holds one number a row, if the model has such."""
    output = _only_float(model.outputs)
    if output is None or not _takes_features(model):
        return None
    return output if len(output.shape) in (1, 2) and output.shape[1:] in ((), (1,)) else None


def _takes_features(model: Served) -> bool:
    return len(model.inputs) == 1 and bool(
        _only_float(model.inputs)
        and model.inputs[0].shape
        and min(model.inputs[0].shape[1:], default=1) > 0
    )


def _only_float(specs: tuple[TensorSpec, ...]) -> TensorSpec | None:
    floats = [spec for spec in specs if spec.dtype.startswith("float")]
    return floats[0] if len(floats) == 1 else None


def _not_for(model: Served, method: str, wanted: str) -> str:
    def say(specs: tuple[TensorSpec, ...]) -> str:
        return ", ".join(f"{spec.name!r} {spec.dtype} {list(spec.shape)}" for spec in specs)

    return (
        f"{method!r} is for models of one float input of a fixed size and {wanted}, this one takes"
        f" {say(model.inputs)} and gives {say(model.outputs)}: ask for 'predict'"
    )


def _examination(
    body: Bytes, model: Served, output: TensorSpec, tell: Callable[[Array], bytes]
) -> Question:
    """Asks for what `tell` makes of the wanted output of all examples, [N, C]."""
    spec = model.inputs[0]
    value = read_object(body, _KEYS, "'examples'")
    array = _features(value, spec)

    def tell_all(results: Tensors) -> bytes:
        found = results[output.name]
        if found.shape[:1] != array.shape[:1]:
            raise BadOutput(
                f"output {output.name!r} has shape {list(found.shape)} for {len(array)} examples"
            )
        return tell(found.reshape(len(array), -1))

    calls = split_calls({spec.name: array}, model.inputs)
    return Question(calls, tell_all, read_sequence(value))


def _features(value: dict[str, Any], spec: TensorSpec) -> Array:
    examples, context = value.get("examples"), value.get("context", {})
    if not isinstance(examples, list) or not examples:
        found = "empty" if examples == [] else kind(examples) if examples is not None else "missing"
        raise BadBody(f"'examples' is {found}, expected a list of objects with {spec.name!r}")
    if not isinstance(context, dict):
        raise BadBody(f"'context' is {kind(context)}, expected an object")
    rows = [_feature(i, example, context, spec) for i, example in enumerate(examples)]
    return tensor(rows, TensorSpec(spec.name, spec.dtype, (-1, _width(spec)))).reshape(
        (len(rows), *spec.shape[1:])
    )


def _feature(i: int, example: Any, context: dict[str, Any], spec: TensorSpec) -> list[Any]:
    """The flat values of an example's only feature; one value may stand without a list."""
    if not isinstance(example, dict):
        raise BadBody(f"example {i} is {kind(example)}, expected an object with {spec.name!r}")
    features = {**context, **example}
    if features.keys() != {spec.name}:
        found = ", ".join(map(repr, features)) or "nothing"
        raise BadBody(f"example {i} has {found}, expected {spec.name!r}")
    feature = features[spec.name]
    values = feature if isinstance(feature, list) else [feature]
    if len(values) != _width(spec):
        raise BadBody(
            f"example {i} has {len(values)} values of {spec.name!r}, expected {_width(spec)}"
        )
    return values


def _width(spec: TensorSpec) -> int:
    return math.prod(spec.shape[1:])
