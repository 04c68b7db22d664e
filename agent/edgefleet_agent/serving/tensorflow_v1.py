"""TensorFlow Serving's REST API v1: its pages and its inferences. Spec: [api-2], [api-3].

Pure. The bodies of inferences are read in the worker (`rest_v1`, `rest_v1_scores`).
"""

from __future__ import annotations

from typing import Final

from edgefleet_agent.runtime.frames import Ask
from edgefleet_agent.serving.answer import Answer, give, refuse
from edgefleet_agent.serving.datatypes import TENSORFLOW
from edgefleet_agent.serving.door import Asked, Door, Inference, Places
from edgefleet_agent.serving.router import Entry
from edgefleet_agent.serving.versions import named, of_slot
from edgefleet_contract.bundle import TensorSpec

_SIGNATURE: Final = "serving_default"
_MODEL: Final = "/v1/models/{model}"
_OF: Final = {
    _MODEL: "the version that serves",
    _MODEL + "/versions/{version}": "a version",
    _MODEL + "/labels/{label}": "the version with a label",
}


def find(entries: tuple[Entry, ...], places: Places) -> Entry | Answer:
    """Where an inference goes, or TensorFlow Serving's word for that it is not there."""
    entry = _named(entries, places)
    if isinstance(entry, Entry):
        return entry
    slot = places["model"]
    if "label" in places and entry is not None:
        return refuse(404, f"Unrecognized servable version label: {places['label']}")
    wanted = f"Specific({slot}, {places['version']})" if "version" in places else f"Latest({slot})"
    return refuse(404, f"Servable not found for request: {wanted}")


def _named(entries: tuple[Entry, ...], places: Places) -> Entry | str | None:
    """The entry; the model's name if only its version or label is another."""
    found = of_slot(entries, places["model"])
    return (named(found, places) or places["model"]) if found else None


def status(asked: Asked) -> Answer:
    """The versions of a model, or the one that is named, and whether they serve."""
    entry = _named(asked.entries, asked.places)
    if not isinstance(entry, Entry):
        slot, version = asked.places["model"], asked.places.get("version")
        if entry is not None and version is not None:
            return refuse(404, f"Could not find version {version} of model {slot}")
        if entry is not None:
            return refuse(404, f"Unrecognized servable version label: {asked.places['label']}")
        return refuse(404, f"Could not find any versions of model {slot}")
    is_named = "version" in asked.places or "label" in asked.places
    shown = (entry,) if is_named else of_slot(asked.entries, entry.route.slot)
    return give(
        {
            "model_version_status": [
                {
                    "version": str(entry.route.version),
                    "state": state(entry),
                    "status": {"error_code": "OK", "error_message": ""},
                }
                for entry in shown
            ]
        }
    )


def metadata(asked: Asked) -> Answer:
    """Inputs and outputs as a signature."""
    entry = find(asked.entries, asked.places)
    if isinstance(entry, Answer):
        return entry
    route = entry.route
    described = {
        "inputs": {spec.name: _tensor(spec) for spec in route.inputs},
        "outputs": {spec.name: _tensor(spec) for spec in route.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    return give(
        {
            "model_spec": {
                "name": route.slot,
                "signature_name": "",
                "version": str(route.version),
            },
            "metadata": {"signature_def": {"signature_def": {_SIGNATURE: described}}},
        }
    )


def model_list(asked: Asked) -> Answer:
    """Every served model (ours; TensorFlow Serving has no such page)."""
    models = [
        {
            "name": entry.route.slot,
            "model": entry.route.model,
            "version": str(entry.route.version),
            "label": entry.route.label,
            "state": state(entry),
        }
        for entry in asked.entries
    ]
    return give({"models": models})


def state(entry: Entry) -> str:
    """TensorFlow Serving's word."""
    return "AVAILABLE" if entry.link.is_up else "LOADING"


def _tensor(spec: TensorSpec) -> dict[str, object]:
    dim = [{"size": str(size), "name": ""} for size in spec.shape]
    return {
        "dtype": TENSORFLOW[spec.dtype],
        "tensor_shape": {"dim": dim, "unknown_rank": False},
        "name": spec.name,
    }


_INFERENCES: Final = (
    ("predict", "Run %s on rows or columns", Inference(Ask.PREDICT_V1, find)),
    ("classify", "Class names and scores of examples by %s", Inference(Ask.CLASSIFY_V1, find)),
    ("regress", "One number for each example by %s", Inference(Ask.REGRESS_V1, find)),
)
DOORS: Final = (
    *(
        Door("POST", f"{path}:{verb}", about % which, to)
        for verb, about, to in _INFERENCES
        for path, which in _OF.items()
    ),
    *(Door("GET", path, f"Whether {which} serves", status) for path, which in _OF.items()),
    *(
        Door("GET", f"{path}/metadata", f"Inputs and outputs of {which}", metadata)
        for path, which in _OF.items()
    ),
    Door("GET", "/v1/models", "What is served", model_list),
)
