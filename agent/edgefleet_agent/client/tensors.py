"""Arrays to the body of an inference and back, in binary, by the server's own codec. [api-6.5]"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgefleet_agent.client.messages import Metadata
from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_agent.serving.bodies import fits, names
from edgefleet_agent.serving.datatypes import OIP
from edgefleet_agent.serving.oip_v2_tensors import to_bytes
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import OperatorError

JSON_SIZE: Final = "inference-header-content-length"


def check_feeds(inputs: Mapping[str, Array] | Array, model: Metadata) -> Tensors:
    """The arrays by input name, held against what the model declares; one array is its only input.

    Raises:
        OperatorError: other names, another dtype or shape; it says what was found.
    """
    if not isinstance(inputs, Mapping):
        if len(model.inputs) != 1:
            raise OperatorError(
                f"{model.name} takes {names(model.inputs)}, found one array without a name",
                hint="give a dict of arrays by input name",
            )
        inputs = {model.inputs[0].name: inputs}
    if inputs.keys() != {spec.name for spec in model.inputs}:
        found = ", ".join(map(repr, inputs)) or "nothing"
        raise OperatorError(f"{model.name} takes {names(model.inputs)}, found {found}")
    return {spec.name: _check(np.asarray(inputs[spec.name]), spec, model) for spec in model.inputs}


def render(
    feeds: Tensors,
    model: Metadata,
    outputs: Sequence[str] | None,
    parameters: Mapping[str, object] | None = None,
) -> tuple[bytes, int]:
    """The body of an inference, and how much of it is JSON. Every output is asked for in binary."""
    dtypes = {spec.name: spec.dtype for spec in model.inputs}
    # The widest first: each tensor then lies at a multiple of its element's size. [api-6.7]
    order = sorted(feeds, key=lambda name: (feeds[name].dtype == object, -feeds[name].itemsize))
    pieces = [to_bytes(feeds[name]) for name in order]
    head: dict[str, Any] = {
        "inputs": [
            {
                "name": name,
                "datatype": OIP[dtypes[name]],
                "shape": list(feeds[name].shape),
                "parameters": {"binary_data_size": piece.nbytes},
            }
            for name, piece in zip(order, pieces, strict=True)
        ],
        "parameters": {"binary_data_output": True, **(parameters or {})},
    }
    if outputs is not None:
        head["outputs"] = [{"name": name} for name in outputs]
    text = json.dumps(head).encode()
    return b"".join((text, *pieces)), len(text)


def _check(array: Array, spec: TensorSpec, model: Metadata) -> Array:
    if spec.dtype == "string":
        array = _texts(array, spec, model)
    elif array.dtype.newbyteorder("=") != np.dtype(spec.dtype):
        raise OperatorError(
            f"{model.name}: input {spec.name!r} has dtype {array.dtype}, expected {spec.dtype}",
            hint=f"array.astype({spec.dtype!r}) converts it",
        )
    if not fits(array.shape, spec):
        raise OperatorError(
            f"{model.name}: input {spec.name!r} has shape {list(array.shape)}, expected"
            f" {list(spec.shape)}"
        )
    if not math.prod(array.shape):
        raise OperatorError(
            f"{model.name}: input {spec.name!r} is empty, its shape is {list(array.shape)}"
        )
    return array


def _texts(array: Array, spec: TensorSpec, model: Metadata) -> Array:
    strangers = [item for item in array.ravel() if not isinstance(item, (str, bytes))]
    if strangers:
        raise OperatorError(
            f"{model.name}: input {spec.name!r} holds {type(strangers[0]).__name__}, expected text"
        )
    try:
        for item in array.ravel():
            _ = item.encode() if isinstance(item, str) else item.decode()
    except UnicodeError as error:
        raise OperatorError(
            f"{model.name}: input {spec.name!r} holds text that is not UTF-8: {error}"
        ) from None
    return array.astype(object)
