"""What `edge-agent predict` prints: a model's answer to a file, or its largest classes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from edgefleet_agent.client.credentials import ANONYMOUS, Credentials
from edgefleet_agent.client.files import is_json, read_feeds, read_json
from edgefleet_agent.client.messages import Metadata
from edgefleet_agent.client.sync import Client
from edgefleet_agent.client.tensors import check_feeds
from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.serving.bodies import BadOutput, Served
from edgefleet_agent.serving.rest_v1 import Request, render
from edgefleet_agent.serving.rest_v1_scores import class_scores
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import DeviceError, OperatorError
from edgefleet_contract.reasons import Reason


def predict(
    address: str,
    model: str,
    source: str,
    *,
    top: int | None = None,
    scale: float | None = None,
    as_json: bool = False,
    credentials: Credentials = ANONYMOUS,
) -> str:
    """The text of an answer: JSON, or with `top` a line a class unless `as_json`.

    Raises:
        OperatorError: the input cannot be read, or is none for this model.
        TransientError: nobody answers, or the model is busy.
        DeviceError: the agent failed; its words are in the message.
        Unverified: who answers is not known to be the agent.
    """
    if top is not None and top < 1:
        raise OperatorError(f"--top is {top}, expected 1 or more")
    with Client(address, credentials=credentials) as client:
        if top is None and scale is None and is_json(source):
            return json.dumps(client.predict_json(model, read_json(source)))
        about = client.metadata(model)
        feeds = check_feeds(read_feeds(source, about, scale), about)
        if top is None:
            return _tell(client.infer(model, feeds), feeds, about)
        rows = [_largest(row, top) for row in _scores(client, about, feeds)]
    if as_json:
        return json.dumps(rows)
    return "\n\n".join(
        "\n".join(f"{item['score']:<12.6g} {item['class']}" for item in row) for row in rows
    )


def _tell(results: Tensors, feeds: Tensors, model: Metadata) -> str:
    """The answer as `:predict` gives it: row by row where every output has a row an input."""
    count = max((len(array) for array in feeds.values() if array.ndim), default=0)
    is_rows = all(array.shape[:1] == (count,) for array in results.values())
    try:
        return render(Request((), is_rows, count), results, model.outputs).decode()
    except BadOutput as error:
        raise DeviceError(f"{model.name}: {error}", reason=Reason.INTERNAL) from None


def _scores(client: Client, model: Metadata, feeds: Tensors) -> list[list[tuple[str, float]]]:
    """Label and score of every class, a list a row; a class without a label has its index."""
    output = class_scores(Served(model.name, 0, model.inputs, model.outputs))
    if output is not None:
        ((name, rows),) = feeds.items()
        examples: list[Json] = [{name: row.ravel().tolist()} for row in rows]
        answer: Any = client.predict_json(model.name, {"examples": examples}, method="classify")
        return [
            [(label or str(i), score) for i, (label, score) in enumerate(row)]
            for row in answer["result"]
        ]
    results = client.infer(model.name, feeds)
    several = [name for name, array in results.items() if array.ndim == 2 and array.dtype != object]
    if len(several) != 1:
        found = ", ".join(f"{name!r} {list(array.shape)}" for name, array in results.items())
        raise OperatorError(f"--top needs one output [N, classes], {model.name} gives {found}")
    return [[(str(i), x) for i, x in enumerate(row)] for row in results[several[0]].tolist()]


def _largest(row: list[tuple[str, float]], top: int) -> list[dict[str, object]]:
    order = np.argsort([-score for _, score in row], kind="stable")[:top].tolist()
    return [{"class": row[i][0], "index": i, "score": row[i][1]} for i in order]
