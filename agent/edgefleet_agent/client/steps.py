"""What a client says, one call after another, and what it makes of the answers. Without I/O.

Each method is a generator: it yields calls, is sent their replies, and returns the result. The
clients carry them, one on a blocking socket, one on asyncio.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

from edgefleet_agent.client.messages import Call, Metadata, ModelState, Reply, SequenceLost
from edgefleet_agent.client.tensors import JSON_SIZE, check_feeds, render
from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_agent.serving.bodies import BadBody
from edgefleet_agent.serving.datatypes import OIP
from edgefleet_agent.serving.oip_v2_bodies import read_outputs
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import DeviceError, Malformed, OperatorError, TransientError
from edgefleet_contract.reasons import Reason

T = TypeVar("T")
Steps: TypeAlias = Generator[Call, Reply, T]

_JSON: Final = {"Content-Type": "application/json"}
_DTYPES: Final = {word: dtype for dtype, word in OIP.items()}


class Script:
    """The steps of every method. Remembers what models take until an answer speaks against it, and
    which version `answered` an inference last."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], Metadata] = {}
        self.answered = ""

    def models(self) -> Steps[tuple[ModelState, ...]]:
        """All models of the device."""
        reply = _good((yield Call("POST", "/v2/repository/index", b"{}", _JSON)), "the models")
        return _read(
            lambda: tuple(
                ModelState(
                    item["name"], item["version"], item["state"] == "READY", item.get("reason", "")
                )
                for item in reply.json()
            )
        )

    def metadata(self, model: str, version: str | None) -> Steps[Metadata]:
        """What a model takes and gives."""
        reply = _good((yield Call("GET", _path(model, version))), model)

        def read() -> Metadata:
            value = reply.json()
            return Metadata(
                value["name"],
                version or value["versions"][0],  # the first is the one that serves
                value["platform"],
                _specs(value["inputs"]),
                _specs(value["outputs"]),
            )

        self._known[model, version] = known = _read(read)
        return known

    def metrics(self) -> Steps[str]:
        """Prometheus' text: counts, latencies, drift."""
        reply = yield Call("GET", "/metrics")
        _good(reply, "the metrics")
        return bytes(reply.body).decode()

    def is_ready(self, model: str | None) -> Steps[bool]:
        """Whether a model, or all of them, would answer."""
        path = "/v2/health/ready" if model is None else f"{_path(model, None)}/ready"
        reply = yield Call("GET", path)
        if reply.status in (400, 404):
            return False
        _good(reply, model or "the models")
        return True

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array] | Array,
        version: str | None,
        outputs: Sequence[str] | None,
        *,
        parameters: Mapping[str, object] | None = None,
        repeatable: bool = True,
    ) -> Steps[Tensors]:
        """The outputs by name. `parameters` are the request's."""
        known = self._known.get((model, version))
        if known is None:
            feeds = check_feeds(inputs, known := (yield from self.metadata(model, version)))
        else:
            try:
                feeds = check_feeds(inputs, known)
            except OperatorError:  # another version may serve by now, and take other inputs
                feeds = check_feeds(inputs, known := (yield from self.metadata(model, version)))
        body, size = render(feeds, known, outputs, parameters)
        headers = {"Content-Type": "application/octet-stream", JSON_SIZE: str(size)}
        reply = yield Call("POST", f"{_path(model, version)}/infer", body, headers, repeatable)
        self.answered = reply.headers.get("edgefleet-model-version", "")
        if self.answered != known.version:
            self._known.pop((model, version), None)
        _good(reply, model)
        return _read(
            lambda: read_outputs(memoryview(reply.body), int(reply.headers.get(JSON_SIZE, 0)))
        )

    def end(self, model: str, sequence: str) -> Steps[None]:
        """End a sequence without an inference. [api-7.6]"""
        asked = {"inputs": [], "parameters": {"sequence_id": sequence, "sequence_end": True}}
        body = json.dumps(asked).encode()
        _good((yield Call("POST", f"{_path(model, None)}/infer", body, _JSON)), model)

    def predict_json(self, model: str, body: Json, version: str | None, method: str) -> Steps[Json]:
        """The answer of TensorFlow Serving's protocol; a list is taken for rows."""
        asked = body if isinstance(body, dict) else {"instances": body}
        of = "" if version is None else f"/versions/{quote(version, safe='')}"
        path = f"/v1/models/{quote(model, safe='')}{of}:{method}"
        reply = _good((yield Call("POST", path, json.dumps(asked).encode(), _JSON)), model)
        answer: Json = _read(reply.json)
        return answer


def _path(model: str, version: str | None) -> str:
    of = "" if version is None else f"/versions/{quote(version, safe='')}"
    return f"/v2/models/{quote(model, safe='')}{of}"


def _specs(told: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(item["name"], _DTYPES[item["datatype"]], tuple(item["shape"])) for item in told
    )


def _good(reply: Reply, what: str) -> Reply:
    """The reply, if its status is 200. [api-4.1]

    Raises:
        TransientError: 408, 429, 503.
        SequenceLost: 409.
        OperatorError: the caller's to mend, in the device's words.
        DeviceError: anything else, in the device's words.
    """
    if reply.status == 200:
        return reply
    try:
        value = reply.json()
        said = str(value["error"] if isinstance(value, dict) and "error" in value else value)
    except ValueError:
        said = reply.body.decode(errors="replace")[:500]
    message = f"{what}: {said} (status {reply.status})"
    if reply.status in (408, 429, 503):
        after = reply.headers.get("retry-after", "")
        raise TransientError(message, retry_after_s=float(after) if after.isdigit() else None)
    if reply.status == 409:
        raise SequenceLost(message, hint="start a new sequence")
    if 400 <= reply.status < 500:
        raise OperatorError(message)
    raise DeviceError(message, reason=Reason.INTERNAL)


def _read(read: Callable[[], T]) -> T:
    """What an answer says.

    Raises:
        DeviceError: it is not what the specification describes.
    """
    try:
        return read()
    except (ValueError, LookupError, TypeError, AttributeError, BadBody, Malformed) as error:
        raise DeviceError(
            f"the answer is not as the protocol has it: {error!r}", reason=Reason.INTERNAL
        ) from None
