"""How fast a blob comes: in band with a window against stop-and-wait, over HTTP against `requests`.

A real control room with its broker; the device's own link and store. `--rtt` puts a relay between
them that delays every byte by half of it each way (0: none), for MQTT and HTTP alike. The ways take
turns, and each figure is the median of the rounds, MB/s of verified bytes in the store. `raw` is
`requests` reading the same blob into nothing, which is what HTTP can give.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import requests

from edgefleet_agent import identity as identities
from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.mqtt_chunks import MqttChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.transfer.mover import Mover
from edgefleet_agent.transfer.transport import Transport
from edgefleet_contract.bundle import chunk_list, sha256
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.datadir import DataDir
from tests.system.in_band import linked
from tests.system.site import open_site


async def relay(to: int, delay_s: float) -> None:
    """Pass TCP on to a port, every byte `delay_s` later; prints its own port, and never ends."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to, limit=2**20)
        with suppress(ConnectionError):
            await asyncio.gather(_pass(reader, back, delay_s), _pass(there, writer, delay_s))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    now = asyncio.get_running_loop().time
    late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(4096)

    async def read() -> None:
        while True:
            data = await reader.read(2**18)
            await late.put((now() + delay_s, data))
            if not data:
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        while True:
            due, data = await late.get()
            await asyncio.sleep(max(0.0, due - now()))
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()


@contextmanager
def relayed(port: int, rtt_s: float) -> Iterator[int]:
    """A port that leads to another, `rtt_s` further away."""
    if not rtt_s:
        yield port
        return
    command = [sys.executable, "-m", "bench.transfer", "--relay", str(port), str(rtt_s / 2)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def measure(size: int, rtt_s: float, rounds: int, windows: list[int]) -> dict[str, float]:
    """MB/s of each way."""
    raw = random.Random(1).randbytes(size)
    table = chunk_list(raw)
    took: dict[str, list[float]] = {}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        site = stack.enter_context(open_site(root, is_tls=False))
        state = site.enrol("pi-1")
        shelf = FileShelf(DataDir(site.data).blobs)
        for blob in (raw, table):
            shelf.put(sha256(blob), io.BytesIO(blob), max_bytes=len(blob))
        ports = [
            stack.enter_context(relayed(port, rtt_s)) for port in (site.mqtt_port, site.http_port)
        ]
        identity = identities.load(state)
        identity = replace(identity, enrolment=replace(identity.enrolment, mqtt_port=ports[0]))
        url = f"http://127.0.0.1:{ports[1]}/blobs"

        def fetched(transport: Transport) -> None:
            with tempfile.TemporaryDirectory(dir=root) as folder:
                began = time.perf_counter()
                Mover(Store(Path(folder)), [transport]).fetch_file(
                    sha256(raw),
                    size=size,
                    chunk_list_sha256=sha256(table),
                    sources=(url,),
                    what="blob",
                    progress=lambda _: None,
                )
                took_s.append(time.perf_counter() - began)

        def in_band(window: int) -> None:
            chunks = MqttChunks("pi-1", window=window)
            with linked(identity, chunks):
                fetched(chunks)

        def plain() -> None:
            began = time.perf_counter()
            with requests.get(f"{url}/{sha256(raw)}", stream=True, timeout=60) as answer:
                assert sum(map(len, answer.iter_content(65536))) == size
            took_s.append(time.perf_counter() - began)

        ways: dict[str, Callable[[], None]] = {
            f"mqtt_window_{window}": lambda window=window: in_band(window)  # type: ignore[misc] # mypy cannot infer a lambda's default
            for window in windows
        }
        ways |= {"http": lambda: fetched(HttpChunks()), "raw": plain}
        for _ in range(rounds):
            for name, way in ways.items():
                took_s: list[float] = []
                way()
                took.setdefault(name, []).extend(took_s)
    speed = {name: size / 1e6 / statistics.median(found) for name, found in took.items()}
    figures = {f"{name}_mb_per_s": round(value, 2) for name, value in speed.items()}
    first, second = (f"mqtt_window_{window}" for window in windows[:2])
    return {
        **figures,
        "window_over_stop_and_wait": round(speed[second] / speed[first], 2),
        "mqtt_over_http": round(speed[second] / speed["http"], 3),
        "http_over_raw": round(speed["http"] / speed["raw"], 3),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench transfer", description=__doc__)
    parser.add_argument("--mb", type=int, default=16, help="size of the blob")
    parser.add_argument("--rtt", type=float, default=50.0, help="round trip, ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--relay", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.relay:
        asyncio.run(relay(int(options.relay[0]), float(options.relay[1])))
    figures = measure(options.mb * 10**6, options.rtt / 1e3, options.rounds, [1, 8, 16])
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:>28} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
