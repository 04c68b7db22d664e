"""Ask a running agent: plain HTTP over its Unix socket or a TCP address."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from pathlib import Path
from typing import Final

import numpy as np

from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import DeviceError, OperatorError, TransientError
from edgefleet_contract.reasons import Reason

TIMEOUT_S: Final = 60.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def connect(address: str) -> http.client.HTTPConnection:
    """A keep-alive connection to `unix:PATH` or `HOST:PORT`.

    Raises:
        OperatorError: `address` is neither.
    """
    if address.startswith("unix:"):
        return _UnixConnection(Path(address.removeprefix("unix:")))
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise OperatorError(f"{address!r} is not an address", hint="give unix:PATH or HOST:PORT")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_S)


def request(
    address: str, method: str, path: str, *, body: bytes | None = None
) -> tuple[int, bytes]:
    """The status and body of one request.

    Raises:
        TransientError: nobody answers there.
    """
    connection = connect(address)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(
            f"no agent answers at {address}: {error}", hint="is it running? `edge-agent status`"
        ) from None
    finally:
        connection.close()


def predict(address: str, model: str, source: str) -> Json:
    """The answer of a model to a JSON or `.npy` file, or to JSON on standard input (`-`).

    Raises:
        OperatorError: the input cannot be read.
        TransientError: nobody answers there.
        DeviceError: the agent refused the request; its words are in the message.
    """
    body = json.dumps(_read_input(source)).encode()
    status, raw = request(address, "POST", f"/v1/models/{model}:predict", body=body)
    try:
        answer: Json = json.loads(raw)
    except ValueError:
        answer = {"error": raw.decode(errors="replace")[:500]}
    if status != 200:
        said = answer.get("error") if isinstance(answer, dict) else answer
        raise DeviceError(f"{model}: {said} (status {status})", reason=Reason.INTERNAL)
    return answer


def _read_input(source: str) -> Json:
    try:
        if source.endswith(".npy"):
            array = np.load(source, allow_pickle=False)
            return {"instances": array.tolist()}
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        value: Json = json.loads(text)
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot read the input {source}: {error}") from None
    return value if isinstance(value, dict) else {"instances": value}
