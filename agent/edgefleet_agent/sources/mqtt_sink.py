"""Results for the broker, by way of the agent: this process has no connection and no key."""

from __future__ import annotations

import json
from typing import Any, Final

from edgefleet_agent.serving.datatypes import OIP
from edgefleet_agent.sources.plugin import Answer, Setup

MAX_VALUES: Final = 8192
MAX_BYTES: Final = 64 * 1024
"""More is not published. [wire-11.1]"""


def available() -> str:
    """The agent has the connection."""
    return ""


def open(setup: Setup) -> MqttSink:  # noqa: A001  # the word of the Protocol
    """A sink that tells the agent. Its options are the agent's."""
    return MqttSink(setup)


class MqttSink:
    """See above."""

    def __init__(self, setup: Setup) -> None:
        self._tell = setup.tell

    def send(self, answer: Answer, cause: str) -> None:
        """Tell the agent; it says what it could not publish."""
        size = sum(array.size for array in answer.outputs.values())
        if size > MAX_VALUES:
            self._tell({"lost": f"a result of {size} values, at most {MAX_VALUES} are published"})
            return
        result = {
            "ts": answer.ts,
            "version": answer.version,
            "cause": cause,
            "outputs": [_tensor(name, array) for name, array in answer.outputs.items()],
            "tops": list(answer.tops),
            "metadata": dict(answer.metadata),
        }
        if (length := len(json.dumps(result))) > MAX_BYTES:
            self._tell({"lost": f"a result of {length} bytes, at most {MAX_BYTES} are published"})
            return
        self._tell({"result": result})

    def close(self) -> None:
        """Nothing is open."""


def _tensor(name: str, array: Any) -> dict[str, Any]:
    head = {"name": name, "shape": list(array.shape)}
    if array.dtype.kind in "OUS":
        texts = [x.decode(errors="replace") if isinstance(x, bytes) else x for x in array.ravel()]
        return {**head, "datatype": "BYTES", "texts": texts}
    # Numbers all: true and false are 1 and 0 here.
    return {**head, "datatype": OIP[array.dtype.name], "data": (array.ravel() + 0.0).tolist()}
