"""Other servers for the same model: installed once, each in an environment of its own, and run.

The environments are below `build/peers`, made from the versions in `bench/peers/<name>.txt` and the
onnxruntime that is installed here, and used again. A peer that cannot be installed or does not
start is told with what pip or it said, and left out.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from bench._tree import ended, until
from bench._wire import Reply, Wire, get, post
from demo.processes import free_port

HERE = Path(__file__).parent
CACHE = HERE.parent / "build" / "peers"

Read = Callable[[Reply], np.ndarray]


@dataclass(frozen=True, slots=True)
class Way:
    """How one kind of request is made of a row, and how its answer is read."""

    make: Callable[[np.ndarray], bytes]
    read: Read


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of others. `ready` is a path that answers 200 once the model does.

    Each has the ways `json` and `binary`.
    """

    packages: tuple[str, ...]
    ready: str
    ways: dict[str, Way]
    environment: dict[str, str]


class Unavailable(Exception):
    """The peer cannot be measured here; the message says why."""


def v2_json(path: str) -> Way:
    """The Open Inference Protocol in JSON."""

    def make(x: np.ndarray) -> bytes:
        tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
        body = json.dumps({"inputs": [tensor | {"data": x.ravel().tolist()}]}).encode()
        return post(path, body, {"Content-Type": "application/json"})

    return Way(make, lambda reply: _floats(json.loads(reply.body)["outputs"][0]["data"]))


def v2_binary(path: str) -> Way:
    """The Open Inference Protocol with binary tensors, in and out."""
    size = "Inference-Header-Content-Length"

    def make(x: np.ndarray) -> bytes:
        tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
        tensor |= {"parameters": {"binary_data_size": x.nbytes}}
        outputs = [{"name": "y", "parameters": {"binary_data": True}}]
        asked = {"inputs": [tensor], "outputs": outputs, "parameters": {"binary_data_output": True}}
        head = json.dumps(asked).encode()
        headers = {size: str(len(head)), "Content-Type": "application/octet-stream"}
        return post(path, head + x.tobytes(), headers)

    def read(reply: Reply) -> np.ndarray:
        return np.frombuffer(reply.body[int(reply.headers[size.lower()]) :], np.float32)

    return Way(make, read)


def _base64(path: str) -> Way:
    def make(x: np.ndarray) -> bytes:
        text = base64.b64encode(x.tobytes()).decode()
        tensor = {"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
        body = json.dumps({"inputs": [tensor]}).encode()
        return post(path, body, {"Content-Type": "application/json"})

    return Way(make, v2_json(path).read)


def _plain_json(path: str, read: Read) -> Way:
    def make(x: np.ndarray) -> bytes:
        body = json.dumps({"x": x.tolist()}).encode()
        return post(path, body, {"Content-Type": "application/json"})

    return Way(make, read)


def _form(path: str, read: Read) -> Way:
    mark = "----bench"

    def make(x: np.ndarray) -> bytes:
        said = 'Content-Disposition: form-data; name="x"; filename="x"'
        head = f"--{mark}\r\n{said}\r\nContent-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + x.tobytes() + f"\r\n--{mark}--\r\n".encode()
        return post(path, body, {"Content-Type": f"multipart/form-data; boundary={mark}"})

    return Way(make, read)


def _octets(path: str, read: Read) -> Way:
    headers = {"Content-Type": "application/octet-stream"}
    return Way(lambda x: post(path, x.tobytes(), headers), read)


def _floats(value: object) -> np.ndarray:
    return np.array(value, np.float32).ravel()


def _whole(reply: Reply) -> np.ndarray:
    return _floats(json.loads(reply.body))


def _named(reply: Reply) -> np.ndarray:
    return _floats(json.loads(reply.body)["y"])


_INFER = "/v2/models/model/infer"

PEERS = {
    "mlserver": Peer(
        ("mlserver",),
        "/v2/models/model/ready",
        {"json": v2_json(_INFER), "binary": _base64(_INFER)},
        {},
    ),
    "kserve": Peer(
        ("kserve",),
        "/v2/models/model/ready",
        {"json": v2_json(_INFER), "binary": v2_binary(_INFER)},
        {},
    ),
    "litserve": Peer(
        ("litserve", "python-multipart"),
        "/health",
        {"json": _plain_json("/predict", _named), "binary": _form("/predict", _named)},
        {},
    ),
    "bentoml": Peer(
        ("bentoml",),
        "/readyz",
        {"json": _plain_json("/predict", _whole), "binary": _octets("/predict_raw", _whole)},
        {"BENTOML_DO_NOT_TRACK": "True"},
    ),
}


def install(name: str, tell: Callable[[str], None]) -> Path:
    """The Python of the peer's environment, made the first time.

    Raises:
        Unavailable: it could not be made.
    """
    packages = [*PEERS[name].packages, f"onnxruntime=={metadata.version('onnxruntime')}"]
    versions = HERE / "peers" / f"{name}.txt"
    folder = CACHE / name
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join((*packages, versions.read_text()))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    tell(f"installing {' '.join(packages)} in {folder} (once)")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--constraint", versions, *packages]
    for command in ([sys.executable, "-m", "venv", "--clear", folder], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = _last(done.stderr or done.stdout)
            raise Unavailable(f"{name} cannot be installed: {said}")
    stamp.write_text(wanted)
    return python


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that answers at `address`."""

    pid: int
    address: str


@contextlib.contextmanager
def served(name: str, python: Path, model: Path) -> Iterator[Running]:
    """The peer, serving the model as `model`; it and all of its processes are gone afterwards.

    Raises:
        Unavailable: it does not come up.
    """
    peer, port = PEERS[name], free_port()
    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "log").open("w+b") as log:
        process = subprocess.Popen(
            [python, HERE / "peers" / f"{name}_peer.py"],
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_clean()
            | peer.environment
            | {
                "HOME": scratch,
                "MODEL": str(model),
                "ORT_DISABLE_TELEMETRY": "1",
                "OMP_NUM_THREADS": "1",
                "PORT": str(port),
                "PORT_2": str(free_port()),
                "PYTHONPATH": str(HERE / "peers"),
                "SCRATCH": scratch,
            },
            start_new_session=True,
        )
        address = f"127.0.0.1:{port}"

        def answers() -> bool:
            if process.poll() is not None:
                raise TimeoutError(f"it ended with {process.returncode}")
            try:
                with Wire(address, timeout_s=5) as wire:
                    return wire.ask(get(peer.ready)).status == 200
            except OSError:
                return False

        with ended(process.pid):
            try:
                until(answers, name, 120)
            except TimeoutError as error:
                log.seek(0)
                said = _last(log.read().decode(errors="replace"))
                raise Unavailable(f"{name} does not start: {error}: {said}") from None
            yield Running(process.pid, address)
        process.wait()


def _clean() -> dict[str, str]:
    """The environment without what leads to packages of ours."""
    hidden = ("PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
