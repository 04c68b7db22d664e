"""Inferences of the Open Inference Protocol by gRPC: a message in, a message out. [api-8]

Run in the worker, since a message is a stranger's. What its tensors must be is what they must be
over HTTP: a message is told in the words of a JSON body (`oip_v2_bodies`), with its raw contents
behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.message import DecodeError

from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.runtime.slots import Bytes
from edgefleet_agent.serving.bodies import BadBody, Served, split_calls
from edgefleet_agent.serving.datatypes import OIP
from edgefleet_agent.serving.grpc_messages import MESSAGES
from edgefleet_agent.serving.oip_v2_bodies import Request, parse_value
from edgefleet_agent.serving.oip_v2_tensors import from_bytes, to_bytes
from edgefleet_agent.serving.question import Question
from edgefleet_contract.bundle import TensorSpec

_CONTENTS: Final = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read(body: Bytes, model: Served) -> Question:
    """What a `ModelInferRequest` asks; it is answered by a `ModelInferResponse` with raw contents.

    Raises:
        BadBody: saying what was expected and what was found.
    """
    try:
        message = MESSAGES["ModelInferRequest"].FromString(bytes(body))
    except DecodeError:
        raise BadBody("the body is no ModelInferRequest") from None
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise BadBody(f"{len(raw)} raw_input_contents for {len(message.inputs)} inputs")
    value = {
        "id": message.id,
        "parameters": _parameters(message.parameters),
        "inputs": [
            _input(tensor, raw[i] if raw else None) for i, tensor in enumerate(message.inputs)
        ],
        "outputs": [
            {"name": output.name, "parameters": _parameters(output.parameters)}
            for output in message.outputs
        ],
    }
    request = parse_value(value, memoryview(b"".join(raw)), model)
    calls = split_calls(request.feeds, model.inputs)
    return Question(calls, lambda results: _tell(request, results, model), request.sequence)


def read_answer(body: Bytes) -> Tensors:
    """The outputs in an answer of ours, by name."""
    message = MESSAGES["ModelInferResponse"].FromString(bytes(body))
    dtypes = {word: dtype for dtype, word in OIP.items()}
    outputs: Tensors = {}
    for output, raw in zip(message.outputs, message.raw_output_contents, strict=True):
        spec = TensorSpec(output.name, dtypes[output.datatype], tuple(output.shape))
        outputs[spec.name] = from_bytes(memoryview(raw), spec, spec.shape)
    return outputs


def _input(tensor: Any, raw: bytes | None) -> dict[str, Any]:
    told = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    parameters = _parameters(tensor.parameters)
    if raw is not None:
        if tensor.HasField("contents"):
            raise BadBody(f"input {tensor.name!r} has both contents and raw_input_contents")
        return told | {"parameters": parameters | {"binary_data_size": len(raw)}}
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise BadBody(
            f"input {tensor.name!r} has datatype {tensor.datatype!r}: send raw_input_contents"
        )
    data = list(getattr(tensor.contents, field))
    if tensor.datatype == "BYTES":
        data = [_text(item, tensor.name) for item in data]
    return told | {"parameters": parameters, "data": data}


def _text(item: bytes, name: str) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise BadBody(f"input {name!r} holds text that is not UTF-8") from None


def _parameters(entries: Iterable[Any]) -> dict[str, Any]:
    """The parameters that say something, as JSON would have them."""
    found = {entry.key: entry.value for entry in entries}
    chosen = {key: value.WhichOneof("parameter_choice") for key, value in found.items()}
    return {key: getattr(found[key], choice) for key, choice in chosen.items() if choice}


def _tell(request: Request, results: Tensors, model: Served) -> bytes:
    answer = MESSAGES["ModelInferResponse"](
        model_name=model.slot, model_version=str(model.version), id=request.id
    )
    for spec in model.outputs:
        if spec.name in request.wanted:
            array = results[spec.name]
            answer.outputs.add(name=spec.name, datatype=OIP[spec.dtype], shape=array.shape)
            answer.raw_output_contents.append(to_bytes(array).tobytes())
    raw: bytes = answer.SerializeToString()
    return raw
