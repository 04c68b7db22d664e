"""Bodies of the Open Inference Protocol v2, JSON and binary tensors. Spec: [api-6].

Run in the worker. Binary tensors are used where they lie in the frame, and an answer is joined
once. The first bytes of a body are ours (`frames.pack_opening`, `frames.pack_closing`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.runtime.frames import pack_closing, unpack_closing, unpack_opening
from edgefleet_agent.runtime.slots import Bytes
from edgefleet_agent.serving.bodies import (
    BadBody,
    Served,
    dump_json,
    fits,
    kind,
    load_json,
    names,
    split_calls,
    wrong_shape,
)
from edgefleet_agent.serving.datatypes import OIP
from edgefleet_agent.serving.oip_v2_tensors import (
    from_bytes,
    from_list,
    plain_list,
    to_bytes,
)
from edgefleet_agent.serving.question import Question, SequenceAsk, read_sequence
from edgefleet_contract.bundle import TensorSpec

# KServe's client repeats the model's name, which the path has said.
_REQUEST: Final = frozenset(
    {"id", "inputs", "outputs", "parameters", "model_name", "model_version"}
)
_INPUT: Final = frozenset({"name", "datatype", "shape", "parameters", "data"})
_OUTPUT: Final = frozenset({"name", "parameters", "datatype", "shape"})
_REFUSED: Final = frozenset(
    {"classification", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"}
)


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed body. `wanted` are the outputs to give, and whether in binary."""

    id: str | None
    feeds: Tensors
    wanted: dict[str, bool]
    sequence: SequenceAsk | None = None


def read(body: Bytes, model: Served) -> Question:
    """What a body asks.

    Raises:
        BadBody: saying what was expected and what was found.
    """
    request = parse(body, model)
    calls = split_calls(request.feeds, model.inputs)
    return Question(calls, lambda results: render(request, results, model), request.sequence)


def parse(body: Bytes, model: Served) -> Request:
    """The tensors that a body holds, in the dtypes that the model declares.

    Raises:
        BadBody: saying what was expected and what was found.
    """
    start, json_size = unpack_opening(body)
    rest = memoryview(body)[start:]
    if json_size == 0:
        return Request(None, _raw(rest, model), {spec.name: False for spec in model.outputs})
    if json_size is not None and json_size > len(rest):
        raise BadBody(
            f"Inference-Header-Content-Length is {json_size}, the body has {len(rest)} bytes"
        )
    end = len(rest) if json_size is None else json_size
    return parse_value(_read(rest[:end]), rest[end:], model)


def parse_value(json_value: Any, binary: memoryview, model: Served) -> Request:
    """`parse` of the JSON of a body and the bytes behind it.

    Raises:
        BadBody: saying what was expected and what was found.
    """
    value = _object(json_value, "the body", _REQUEST)
    id_ = value.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise BadBody(f"'id' is {kind(id_)}, expected text")
    parameters = _parameters(value, "the request")
    feeds = _feeds(value.get("inputs"), binary, model)
    wanted = _wanted(value.get("outputs"), parameters, model)
    return Request(id_, feeds, wanted, read_sequence(parameters))


def render(request: Request, results: Tensors, model: Served) -> bytes:
    """The body of an answer: JSON, then what was asked for in binary.

    Raises:
        BadOutput: NaN or infinity in an output that was asked for in JSON.
    """
    told: list[dict[str, Any]] = []
    pieces: list[memoryview] = []
    in_json: Tensors = {}
    for spec in model.outputs:
        if spec.name not in request.wanted:
            continue
        array = results[spec.name]
        output: dict[str, Any] = {
            "name": spec.name,
            "datatype": OIP[spec.dtype],
            "shape": list(array.shape),
        }
        if request.wanted[spec.name]:
            piece = to_bytes(array)
            output["parameters"] = {"binary_data_size": piece.nbytes}
            pieces.append(piece)
        else:
            output["data"] = plain_list(array, spec.name)
            in_json[spec.name] = array
        told.append(output)
    head: dict[str, Any] = {"model_name": model.slot, "model_version": str(model.version)}
    if request.id is not None:
        head["id"] = request.id
    text = dump_json(head | {"outputs": told}, in_json)
    return b"".join((pack_closing(len(text) if pieces else 0), text, *pieces))


def read_answer(body: Bytes) -> Tensors:
    """The outputs in an answer that `render` made, by name."""
    return read_outputs(*unpack_closing(body))


def read_outputs(view: memoryview, json_size: int) -> Tensors:
    """The outputs in an HTTP body, of which so much is JSON; 0: all."""
    end = json_size or len(view)
    outputs: Tensors = {}
    dtypes = {word: dtype for dtype, word in OIP.items()}
    for output in json.loads(bytes(view[:end]))["outputs"]:
        spec = TensorSpec(output["name"], dtypes[output["datatype"]], tuple(output["shape"]))
        if "data" in output:
            outputs[spec.name] = from_list(output["data"], spec, spec.shape)
        else:
            size = output["parameters"]["binary_data_size"]
            outputs[spec.name] = from_bytes(view[end : end + size], spec, spec.shape)
            end += size
    return outputs


def _read(text: memoryview) -> Any:
    try:
        return load_json(str(text, "utf-8"))
    except UnicodeDecodeError as found:
        raise BadBody(f"the body is not JSON: {found}") from None


def _object(value: Any, what: str, keys: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadBody(f"{what} is {kind(value)}, expected an object")
    unknown = sorted(value.keys() - keys)
    if unknown:
        raise BadBody(f"{what} has an unknown key {unknown[0]!r}")
    return value


def _parameters(value: dict[str, Any], what: str) -> dict[str, Any]:
    """Parameters that we do not know may be left alone, except those that would change a tensor."""
    parameters = value.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadBody(f"'parameters' of {what} is {kind(parameters)}, expected an object")
    refused = sorted(_REFUSED & parameters.keys())
    if refused:
        raise BadBody(f"{what} has parameter {refused[0]!r}, which is not served here")
    for name in ("binary_data", "binary_data_output"):
        if not isinstance(parameters.get(name, False), bool):
            raise BadBody(f"{name!r} of {what} is {kind(parameters[name])}, expected true or false")
    return parameters


def _feeds(inputs: Any, binary: memoryview, model: Served) -> Tensors:
    if not isinstance(inputs, list):
        found = "missing" if inputs is None else kind(inputs)
        raise BadBody(f"'inputs' is {found}, expected a list with {names(model.inputs)}")
    specs = {spec.name: spec for spec in model.inputs}
    feeds: Tensors = {}
    used = 0
    for i, value in enumerate(inputs):
        given = _object(value, f"input {i}", _INPUT)
        name = given.get("name")
        spec = specs.get(name) if isinstance(name, str) else None
        if spec is None:
            found = repr(name) if isinstance(name, str) else kind(name)
            raise BadBody(f"input {i} is named {found}, expected {names(model.inputs)}")
        if spec.name in feeds:
            raise BadBody(f"input {spec.name!r} is given twice")
        shape = _shape(given, spec)
        size = _parameters(given, f"input {spec.name!r}").get("binary_data_size")
        if (size is None) == ("data" not in given):
            raise BadBody(f"input {spec.name!r} needs one of 'data' and 'binary_data_size'")
        if size is None:
            feeds[spec.name] = from_list(given["data"], spec, shape)
            continue
        if type(size) is not int or size < 0:
            raise BadBody(f"'binary_data_size' of input {spec.name!r} is not a number of bytes")
        if used + size > len(binary):
            raise BadBody(
                f"input {spec.name!r} announces {size} bytes, {len(binary) - used} are left of the"
                f" {len(binary)} behind the JSON"
            )
        feeds[spec.name] = from_bytes(binary[used : used + size], spec, shape)
        used += size
    missing = [repr(name) for name in specs if name not in feeds]
    if missing:
        raise BadBody(f"input {', '.join(missing)} is missing")
    if used != len(binary):
        raise BadBody(f"{len(binary) - used} bytes behind the last input belong to none")
    return feeds


def _shape(given: dict[str, Any], spec: TensorSpec) -> tuple[int, ...]:
    if given.get("datatype") != OIP[spec.dtype]:
        raise BadBody(
            f"input {spec.name!r} has datatype {given.get('datatype')!r}, expected"
            f" {OIP[spec.dtype]!r}"
        )
    sizes = given.get("shape")
    if not isinstance(sizes, list) or any(type(size) is not int or size < 1 for size in sizes):
        raise BadBody(f"'shape' of input {spec.name!r} is no list of sizes above 0")
    shape = tuple(sizes)
    if not fits(shape, spec):
        raise wrong_shape(spec, shape)
    return shape


def _wanted(outputs: Any, parameters: dict[str, Any], model: Served) -> dict[str, bool]:
    binary = parameters.get("binary_data_output", False)
    if outputs is None or outputs == []:
        return {spec.name: binary for spec in model.outputs}
    if not isinstance(outputs, list):
        raise BadBody(f"'outputs' is {kind(outputs)}, expected a list")
    known = {spec.name for spec in model.outputs}
    wanted: dict[str, bool] = {}
    for i, value in enumerate(outputs):
        output = _object(value, f"output {i}", _OUTPUT)
        name = output.get("name")
        if not isinstance(name, str) or name not in known:
            found = repr(name) if isinstance(name, str) else kind(name)
            raise BadBody(f"output {i} is named {found}, this model has {names(model.outputs)}")
        if name in wanted:
            raise BadBody(f"output {name!r} is asked for twice")
        wanted[name] = _parameters(output, f"output {name!r}").get("binary_data", binary)
    return wanted


def _raw(binary: memoryview, model: Served) -> Tensors:
    """A body without JSON: the bytes of the only input, whose one open size follows from them."""
    spec, *others = model.inputs
    open_sizes = spec.shape.count(-1)
    if others or open_sizes > 1 or spec.dtype == "string":
        raise BadBody(
            "a body without JSON is for models of one input, of numbers and at most one open size;"
            f" this one takes {names(model.inputs)}"
        )
    row = math.prod((np.dtype(spec.dtype).itemsize, *(size for size in spec.shape if size > 0)))
    count = max(len(binary) // row, 1)
    shape = tuple(count if size == -1 else size for size in spec.shape)
    return {spec.name: from_bytes(binary, spec, shape)}
