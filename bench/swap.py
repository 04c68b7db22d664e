"""Swaps and kills under load: which requests fail, what it does to latency, whether memory grows.

The host, its front, zygote and workers, and the clients are processes of their own. Clients keep
their connection and ask without a pause, half in TensorFlow's REST JSON, half in the Open Inference
Protocol's binary tensors; each answer's bytes must be those of the version that its header names.

Swaps, kills (`kill -9` of the worker) and rests take turns. `p99_ratio` is the 99th percentile of
the requests during which a swap ran over that of the requests at rest, `p99_ratio_kills` the same
with a worker dead: those few wait for the next one, `longest_ms_kills` says how long (median of the
longest of each kill). `rss_ratio` is the resident memory of all our processes after the last swap
over that after the first. A front that is killed does drop its connections: `--fronts` kills it
too, and what fails within a second of it is counted as `front_failures` alone.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import _client
from bench._tree import costs, ended, until

PROTOCOLS = ("json", "binary")
_FRONT_S = 1.0


class Host:
    """The host's process, and what it is told."""

    def __init__(self, folder: Path, *, zygote: bool) -> None:
        command = [sys.executable, "-m", "bench._host", folder, "127.0.0.1:0"]
        self._process = subprocess.Popen(
            [*command, "zygote" if zygote else "programs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.address = self._hear()["address"]

    def ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._hear()

    def activate(self, version: int) -> None:
        failed = self.ask(f"activate {version}")["failed"]
        if failed:
            raise SystemExit(f"version {version}: {failed}")

    def rss_mib(self) -> float:
        return sum(cost.rss_mib for cost in costs(self.pid).values())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the host died")
        return json.loads(line)


@dataclass
class Clients:
    """The clients' processes: what they count while they run, and what they wrote at the end."""

    boards: list[mmap.mmap] = field(default_factory=list)
    outs: list[Path] = field(default_factory=list)

    def count(self, which: int) -> int:
        return sum(_client.read(board, which) for board in self.boards)

    def more(self, requests: int) -> None:
        """Wait until each of them has got so many more answers."""
        goals = [_client.read(board, _client.ANSWERED) + requests for board in self.boards]
        until(
            lambda: all(
                _client.read(board, _client.ANSWERED) >= goal
                for board, goal in zip(self.boards, goals, strict=True)
            ),
            f"{requests} answers more",
        )

    def write(self, which: int, value: int) -> None:
        for board in self.boards:
            _client.write(board, which, value)

    def times(self) -> np.ndarray:
        """Begin and end of every answered request, s: [N, 2]."""
        return np.concatenate([np.fromfile(out).reshape(-1, 2) for out in self.outs])


@contextmanager
def asking(folder: Path, address: str, count: int) -> Iterator[Clients]:
    """So many clients that ask until the end; `times` is there afterwards."""
    clients, processes = Clients(), []
    for number in range(count):
        path, out = folder / f"board-{number}", folder / f"times-{number}"
        path.write_bytes(bytes(_client.BOARD.size))
        with path.open("r+b") as file:
            clients.boards.append(mmap.mmap(file.fileno(), _client.BOARD.size))
        clients.outs.append(out)
        protocol = PROTOCOLS[number % len(PROTOCOLS)]
        command = [sys.executable, "-m", "bench._client", address, protocol, path, out]
        processes.append(subprocess.Popen(command))
    try:
        yield clients
    finally:
        clients.write(_client.STOP, 1)
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


Span = tuple[float, float]


def during(times: np.ndarray, spans: list[Span]) -> np.ndarray:
    """Which requests were under way in any of the spans: bool [N]."""
    found = np.zeros(len(times), bool)
    for begin, end in spans:
        found |= (times[:, 1] >= begin) & (times[:, 0] <= end)
    return found


def percentile(times: np.ndarray, share: float) -> float:
    """Of how long they took, ms."""
    return float(np.quantile(times[:, 1] - times[:, 0], share)) * 1e3


def kill_worker(host: Host) -> Span:
    """Kill it; when, and when another took its place."""
    before = host.ask("pids")
    begin = time.monotonic()
    os.kill(before["worker"], signal.SIGKILL)
    until(lambda: host.ask("pids")["worker"] not in (None, before["worker"]), "a new worker")
    return begin, time.monotonic()


def kill_front(host: Host, clients: Clients) -> Span:
    """Kill it; the clients' next failures are excused."""
    before = host.ask("pids")["front"]
    clients.write(_client.EXCUSES, 1)
    begin = time.monotonic()
    os.kill(before, signal.SIGKILL)
    until(lambda: host.ask("pids")["front"] not in (None, before), "a new front")
    clients.more(10)
    time.sleep(_FRONT_S)
    clients.write(_client.EXCUSES, 0)
    return begin, time.monotonic()


def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        host = Host(folder, zygote=not options.programs)
        swaps: list[Span] = []
        kills: list[Span] = []
        fronts: list[Span] = []
        first = 0.0
        with ended(host.pid):
            host.activate(1)
            with asking(folder, host.address, options.clients) as clients:
                clients.more(options.requests)  # warm
                begun = time.monotonic()
                clients.more(options.requests)
                for number in range(max(options.swaps, options.kills, options.fronts)):
                    if number < options.swaps:
                        begin = time.monotonic()
                        host.activate(number + 2)
                        swaps.append((begin, time.monotonic()))
                        clients.more(options.requests)
                        first = first or host.rss_mib()
                    if number < options.kills:
                        kills.append(kill_worker(host))
                        clients.more(options.requests)
                    if number < options.fronts:
                        fronts.append(kill_front(host, clients))
                        clients.more(options.requests)
                last = host.rss_mib()
            host.close()
        times = clients.times()
        times = times[times[:, 0] >= begun]
        in_swap, in_kill = during(times, swaps), during(times, kills)
        rest = times[~in_swap & ~in_kill & ~during(times, fronts)]
        figures = {
            "swaps": len(swaps),
            "kills": len(kills),
            "requests": clients.count(_client.ANSWERED) + clients.count(_client.FAILED),
            "failures": clients.count(_client.FAILED),
            "p50_ms": percentile(rest, 0.5),
            "p99_ms": percentile(rest, 0.99),
            "rss_mib": last,
            "rss_ratio": last / first if first else 1.0,
        }
        for spans, which, suffix in ((swaps, in_swap, ""), (kills, in_kill, "_kills")):
            if spans:
                figures[f"p99_ratio{suffix}"] = percentile(times[which], 0.99) / figures["p99_ms"]
                figures[f"p50_ratio{suffix}"] = percentile(times[which], 0.5) / figures["p50_ms"]
                figures[f"requests_in{suffix or '_swaps'}"] = int(which.sum())
                figures[f"seconds{suffix}"] = statistics.median(b - a for a, b in spans)
                longest = (percentile(times[during(times, [span])], 1) for span in spans)
                figures[f"longest_ms{suffix}"] = statistics.median(longest)
        if fronts:
            figures |= {"fronts": len(fronts), "front_failures": clients.count(_client.EXCUSED)}
        return {key: round(value, 3) for key, value in figures.items()}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench swap", description=__doc__)
    parser.add_argument("--swaps", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--kills", type=int, default=20, help="of workers (default 20)")
    parser.add_argument("--fronts", type=int, default=0, help="kills of the front (default 0)")
    parser.add_argument(
        "--requests", type=int, default=200, help="of each client at each rest (default 200)"
    )
    parser.add_argument("--clients", type=int, default=2, help="connections (default 2)")
    parser.add_argument("--programs", action="store_true", help="no zygote: start programs")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    figures = measure(options)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>18} {value:g}")
    return 0 if figures["failures"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
