"""The Open Inference Protocol v2 with binary tensors: its pages and its inference. Spec: [api-6].

Pure, and without NumPy. The bodies of inferences are read in the worker (`oip_v2_bodies`).
"""

from __future__ import annotations

import json
from typing import Final

from edgefleet_agent.runtime.frames import Ask, Frame, pack_opening, unpack_closing
from edgefleet_agent.serving.answer import OCTETS, Answer, give, refuse
from edgefleet_agent.serving.datatypes import OIP
from edgefleet_agent.serving.door import Asked, Door, Headers, Inference, Places
from edgefleet_agent.serving.router import Entry
from edgefleet_agent.serving.versions import named, of_slot
from edgefleet_contract import __version__
from edgefleet_contract.bundle import TensorSpec

JSON_SIZE: Final = b"inference-header-content-length"
_MODEL: Final = "/v2/models/{model}"
_OF: Final = {
    _MODEL: "the version that serves",
    _MODEL + "/versions/{version}": "a version",
}
_LARGEST: Final = 2**31


def server(asked: Asked) -> Answer:  # noqa: ARG001  # a page's signature
    """Who answers, and which extensions it knows."""
    return give({"name": "edgefleet", "version": __version__, "extensions": ["binary_tensor_data"]})


def live(asked: Asked) -> Answer:  # noqa: ARG001  # a page's signature
    """200 while the front runs."""
    return give({"live": True})


def ready(asked: Asked) -> Answer:
    """200 if every model has a worker; 400 if not, as the protocol has it."""
    is_ready = all(entry.link.is_up for entry in asked.entries if not entry.route.is_canary)
    return _told(is_ready, {"ready": is_ready})


def model_ready(asked: Asked) -> Answer:
    """200 if the model has a worker; 400 if not."""
    entry = find(asked.entries, asked.places)
    if isinstance(entry, Answer):
        return entry
    return _told(entry.link.is_up, {"name": entry.route.slot, "ready": entry.link.is_up})


def model(asked: Asked) -> Answer:
    """The tensors of a model."""
    entry = find(asked.entries, asked.places)
    if isinstance(entry, Answer):
        return entry
    route = entry.route
    return give(
        {
            "name": route.slot,
            "versions": [str(e.route.version) for e in of_slot(asked.entries, route.slot)],
            "platform": route.platform,
            "inputs": [_tensor(spec) for spec in route.inputs],
            "outputs": [_tensor(spec) for spec in route.outputs],
        }
    )


def index(asked: Asked) -> Answer:
    """Every served model; of those that are ready only, if the body says so."""
    try:
        wanted = json.loads(asked.body or b"{}")
    except (ValueError, RecursionError):
        return refuse(400, "the body is not JSON")
    if not isinstance(wanted, dict) or not isinstance(wanted.get("ready", False), bool):
        return refuse(400, "expected an object with at most 'ready', true or false")
    return give(
        [
            {
                "name": entry.route.slot,
                "version": str(entry.route.version),
                "state": "READY" if entry.link.is_up else "UNAVAILABLE",
                "reason": "" if entry.link.is_up else "its worker is being replaced",
            }
            for entry in asked.entries
            if entry.link.is_up or not wanted.get("ready", False)
        ]
    )


def find(entries: tuple[Entry, ...], places: Places) -> Entry | Answer:
    """Where an inference goes, or what there is instead."""
    name = places["model"]
    there = of_slot(entries, name)
    if not there:
        return refuse(404, f"model {name[:200]!r} is not served here")
    entry = named(there, places)
    if entry is None:
        found = places["version"][:200]
        versions = " and ".join(str(e.route.version) for e in there)
        is_or_are = "is" if len(there) == 1 else "are"
        return refuse(
            404, f"version {found!r} of {name!r} is not served here, {versions} {is_or_are}"
        )
    return entry


def opening(headers: Headers) -> bytes | Answer:
    """What the worker must know of the headers: how much of the body is JSON."""
    size = next((value for name, value in headers if name == JSON_SIZE), None)
    if size is None:
        return pack_opening(None)
    if not size.isdigit() or len(size) > 10 or int(size) > _LARGEST:
        said = size[:50].decode("latin-1")
        return refuse(400, f"Inference-Header-Content-Length is {said!r}, no number of bytes")
    return pack_opening(int(size))


def present(frame: Frame) -> Answer:
    """A worker's answer of status 200 as HTTP has it."""
    body, json_size = unpack_closing(frame.body)
    if not json_size:
        return Answer(frame.code, body)
    return Answer(frame.code, body, OCTETS, ((JSON_SIZE, b"%d" % json_size),))


def _told(is_so: bool, value: dict[str, object]) -> Answer:
    answer = give(value)
    return answer if is_so else Answer(400, answer.body)


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": OIP[spec.dtype], "shape": list(spec.shape)}


_INFER: Final = Inference(Ask.INFER_V2, find, opening, present)
DOORS: Final = (
    *(Door("POST", f"{path}/infer", f"Run {which}", _INFER) for path, which in _OF.items()),
    *(Door("GET", path, f"Inputs and outputs of {which}", model) for path, which in _OF.items()),
    *(
        Door("GET", f"{path}/ready", f"Whether {which} has a worker", model_ready)
        for path, which in _OF.items()
    ),
    Door("GET", "/v2", "Name, version and extensions of the server", server),
    Door("GET", "/v2/health/live", "Whether the server runs", live),
    Door("GET", "/v2/health/ready", "Whether every model has a worker", ready),
    Door("POST", "/v2/repository/index", "What is served", index),
)
