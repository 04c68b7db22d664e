"""What running requests together gives, and what keeping answers gives: ratios, in one run.

Models: a scikit-learn forest of 100 trees on 30 numbers, and a small convolutional net on a picture
of 32 x 32. Each serves alone, in batches, and with a cache, all at once in one host; the ways take
turns of a quarter of a second, so that a busy moment hits all of them. Three distances:

- `raw_*`: the bare session, eight rows at once over one at a time;
- `worker_*`: 16 frames are always with a worker, without HTTP or a front;
- `http_*`: eight keep-alive clients, in this process, on loopback, which want processors too.

`*_gain` is the throughput in batches over the throughput without. `*_hit_gain` is the throughput of
one client that is answered from the cache over that of one that asks for new things. `*_cpu_gain`
compares requests for a second of the processor that our processes used (the worker; with `http_*`
the front too), which others on the machine change less than the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import helper, numpy_helper

from edgefleet_agent.ports import ModelSpec
from edgefleet_agent.runtime import slots
from edgefleet_agent.runtime.frames import GREETING, Ask, FrameReader, header, pack_opening
from edgefleet_agent.runtime.onnx_engine import OnnxSession
from edgefleet_agent.runtime.worker_process import WorkerProcess
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract.bundle import Format, TensorSpec, Variant, sha256
from tests.agent.hosting import RunningHost, running
from tests.agent.models import stored

CLIENTS = 8
TURN_S = 0.25
WAYS = {
    "alone": ModelConfig(threads=1),
    "batch": ModelConfig(threads=1, max_batch=8),
    "waits": ModelConfig(threads=1, max_batch=8, max_delay_ms=1),
    "kept": ModelConfig(threads=1, cache_mib=8),
}
SIZES = {"forest": (30,), "conv": (3, 32, 32)}


def forest() -> bytes:
    """A forest of 100 trees on the breast cancer data."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype(np.float32)
    model = RandomForestClassifier(100, random_state=0).fit(x, y)
    raw = to_onnx(model, x[:1], options={"zipmap": False}, target_opset=15).SerializeToString()
    return bytes(raw)


def conv() -> bytes:
    """Three convolutions and a dense layer; the picture is 3 x 32 x 32."""
    draw = np.random.default_rng(0).normal
    sizes = {"A": (16, 3, 3, 3), "B": (32, 16, 3, 3), "C": (64, 32, 3, 3), "D": (64, 10)}
    pads = {"pads": [1, 1, 1, 1]}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["X", "A"], ["a"], **pads),
            helper.make_node("Relu", ["a"], ["a2"]),
            helper.make_node("Conv", ["a2", "B"], ["b"], strides=[2, 2], **pads),
            helper.make_node("Relu", ["b"], ["b2"]),
            helper.make_node("Conv", ["b2", "C"], ["c"], strides=[2, 2], **pads),
            helper.make_node("GlobalAveragePool", ["c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["e"]),
            helper.make_node("MatMul", ["e", "D"], ["y"]),
        ],
        "conv",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(draw(size=size).astype(np.float32) * 0.1, name)
            for name, size in sizes.items()
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def make_spec(folder: Path, model: str, raw: bytes, way: str) -> ModelSpec:
    """The model in a slot of its own; four golden vectors, by the runtime itself."""
    session = OnnxSession(raw, threads=1)
    x = np.random.default_rng(1).random((4, *SIZES[model]), np.float32)
    found = session.run({"X": x})
    here = folder / f"{model}-{way}"
    here.mkdir()
    (here / "model.onnx").write_bytes(raw)
    outputs = {f"output.{i}": found[spec.name] for i, spec in enumerate(session.outputs)}
    np.savez(here / "golden.npz", **{"input.0": x}, **outputs)
    variant = Variant(
        name="onnx-bench",
        format=Format.ONNX,
        precision="fp32",
        model="model.onnx",
        golden="golden.npz",
        max_abs_err_e6=100,
        inputs=(TensorSpec("X", "float32", (-1, *SIZES[model])),),
        outputs=session.outputs,
        runtimes={"onnxruntime": "0"},
    )
    return ModelSpec(
        slot=f"{model}-{way}",
        model=model,
        version=1,
        bundle_sha256=sha256(raw),
        variant=variant,
        engine="onnxruntime",
        files={name: stored(here / name) for name in ("model.onnx", "golden.npz")},
    )


def binary(model: str, number: int = 0) -> tuple[bytes, int]:
    """The body of a request for one row, and how much of it is JSON; each number is another."""
    x = np.random.default_rng(number).random((1, *SIZES[model]), np.float32)
    tensor = {"name": "X", "datatype": "FP32", "shape": list(x.shape)}
    size = {"parameters": {"binary_data_size": x.nbytes}}
    asked = {"inputs": [tensor | size], "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    return head + x.tobytes(), len(head)


def http_request(model: str, way: str, number: int = 0) -> bytes:
    body, size = binary(model, number)
    lines = (
        f"POST /v2/models/{model}-{way}/infer HTTP/1.1",
        "Host: edge",
        f"Content-Length: {len(body)}",
        f"Inference-Header-Content-Length: {size}",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body


async def ask(requests: Iterator[bytes], port: int, until: float) -> int:
    """How many requests of one keep-alive client were answered before a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < until:
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        await reader.readexactly(int(length))
        count += 1
    writer.close()
    await writer.wait_closed()
    return count


def run_turn(clients: list[Iterator[bytes]], port: int) -> float:
    """Requests a second, of all clients."""

    async def ask_all() -> float:
        start = time.perf_counter()
        counts = await asyncio.gather(*(ask(each, port, start + TURN_S) for each in clients))
        return sum(counts) / (time.perf_counter() - start)

    return asyncio.run(ask_all())


@dataclass
class Rates:
    """Requests a second in each turn, and processor seconds a request over all of them."""

    turns: list[float] = field(default_factory=list)
    requests: float = 0.0
    cpu_s: float = 0.0

    def add(self, rate: float, seconds: float, cpu: float) -> None:
        self.turns.append(rate)
        self.requests += rate * seconds
        self.cpu_s += cpu

    @property
    def per_s(self) -> float:
        return statistics.median(self.turns)

    @property
    def per_cpu_s(self) -> float:
        return self.requests / self.cpu_s


def timed(run: Callable[[], float], rates: Rates, *pids: int) -> None:
    """One turn, and what these processes used meanwhile."""
    before, start = sum(map(cpu_s, pids)), time.perf_counter()
    rate = run()
    rates.add(rate, time.perf_counter() - start, sum(map(cpu_s, pids)) - before)


def over_http(here: RunningHost, rounds: int) -> dict[str, Rates]:
    """Of eight clients, and of one with and without the cache."""
    found: dict[str, Rates] = defaultdict(Rates)
    front = here.host.front_pid
    assert front is not None
    for _ in range(rounds):
        for model in SIZES:
            fresh = iter([http_request(model, "kept", time.time_ns() + i) for i in range(4000)])
            ways = [
                (way, way, [itertools.repeat(http_request(model, way))] * CLIENTS)
                for way in ("alone", "batch", "waits")
            ]
            ways.append(("miss", "kept", [fresh]))
            ways.append(("hit", "kept", [itertools.repeat(http_request(model, "kept"))]))
            for name, way, clients in ways:
                worker = here.host.worker_pids[f"{model}-{way}"]
                ask = functools.partial(run_turn, clients, here.port)
                timed(ask, found[f"http_{model}_{name}"], front, worker)
    return found


def exchange(path: Path, model: str) -> Callable[[], float]:
    """Requests a second, straight at a worker that always has 16 frames."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    fd = slots.make()  # a worker wants its shared memory first
    socket.send_fds(connection, [b"\0"], [fd])
    os.close(fd)
    reader = FrameReader()
    body, size = binary(model)
    body = pack_opening(size) + body
    frame = header(1, Ask.INFER_V2, len(body)) + body

    def run() -> float:
        start, count = time.perf_counter(), 0
        connection.sendall(frame * 2 * CLIENTS)
        pending = 2 * CLIENTS
        while pending:
            come = [f for f in reader.feed(connection.recv(2**18)) if f.id != GREETING]
            assert all(each.code == 200 for each in come)
            count += len(come)
            pending -= len(come)
            if time.perf_counter() < start + TURN_S:
                connection.sendall(frame * len(come))
                pending += len(come)
        return count / (time.perf_counter() - start)

    return run


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def bare(raws: dict[str, bytes], rounds: int) -> dict[str, float]:
    """Rows for a processor second of the bare session, in eights over one at a time."""
    gains = {}
    for model, raw in raws.items():
        session = OnnxSession(raw, threads=1)
        x = np.random.default_rng(1).random((CLIENTS, *SIZES[model]), np.float32)
        costs: list[list[float]] = [[], []]
        for _ in range(rounds * 20):
            for cost, step in zip(costs, (1, CLIENTS), strict=True):
                start = time.process_time()
                for at in range(0, CLIENTS, step):
                    session.run({"X": x[at : at + step]})
                cost.append(time.process_time() - start)
        one, eight = (statistics.median(cost) for cost in costs)
        gains[f"raw_{model}_cpu_gain"] = one / eight
    return gains


async def at_workers(specs: list[ModelSpec], folder: Path, rounds: int) -> dict[str, Rates]:
    """Of each worker."""
    async with AsyncExitStack() as stack:
        ways: dict[str, Callable[[], float]] = {}
        pids: dict[str, int] = {}
        for spec in specs:
            model, _, way = spec.slot.partition("-")
            if way not in ("alone", "batch"):
                continue
            worker = WorkerProcess(
                spec.slot, spec, folder=folder, serving=WAYS[way], ready_s=60, zygote=None
            )
            stack.push_async_callback(worker.stop)
            failed = await worker.start()
            if failed is not None:
                raise SystemExit(failed.detail)
            assert worker.pid is not None
            pids[f"worker_{model}_{way}"] = worker.pid
            ways[f"worker_{model}_{way}"] = exchange(worker.path, model)
        found: dict[str, Rates] = defaultdict(Rates)
        for _ in range(rounds):
            for name, run in ways.items():
                await asyncio.to_thread(timed, run, found[name], pids[name])
        return found


def measure(rounds: int) -> dict[str, float]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raws = {"forest": forest(), "conv": conv()}
        specs = [make_spec(folder, model, raw, way) for model, raw in raws.items() for way in WAYS]
        gains = bare(raws, rounds)
        rates = asyncio.run(at_workers(specs, folder, rounds))
        with running(models={spec.slot: WAYS[spec.slot.partition("-")[2]] for spec in specs}) as on:
            failed = on.do(on.host.activate(tuple(specs)))
            if failed is not None:
                raise SystemExit(failed.detail)
            rates |= over_http(on, rounds)
    for model in SIZES:
        for name, more, less in (
            (f"worker_{model}", "batch", "alone"),
            (f"http_{model}", "batch", "alone"),
            (f"http_{model}_waits", "waits", "alone"),
            (f"http_{model}_hit", "hit", "miss"),
        ):
            where = name.removesuffix("_waits").removesuffix("_hit")
            one, other = rates[f"{where}_{more}"], rates[f"{where}_{less}"]
            gains[f"{name}_gain"] = one.per_s / other.per_s
            gains[f"{name}_cpu_gain"] = one.per_cpu_s / other.per_cpu_s
    told = {f"{name}_per_s": round(each.per_s) for name, each in rates.items()}
    return {**told, **{name: round(value, 2) for name, value in gains.items()}}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench batching", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="turns of each way (default 12)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>26} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
