"""What serving adds to a bare call of the runtime: ours and other servers, side by side in one run.

Servers: `edge-agent run` as it is installed, and MLServer, KServe's Python server, LitServe and
BentoML (`bench/peers`), all with one worker and one thread on the same ONNX file. One client on
keep-alive connections; the ways take turns, a dozen requests each, in an order drawn anew each
time, so that what disturbs the machine disturbs all of them. Each server's first answers are held
against the bare call's: equal, or the bench fails.

`*_over_raw` are a way's percentile over the same percentile of the bare call; `<peer>_over_ours` is
the p50 of the peer's quickest way over our binary one, both on TCP. `*_cpu_ms` is the time of a
processor that a server's processes spend on a request, which other load on the machine hardly
changes. `idle.*` are of whole process trees that nobody asks anything: proportional memory, and CPU
seconds a second.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import _peers
from bench._device import installed
from bench._models import NETS, Net
from bench._tree import cpu_s, pss_mib, run_ns
from bench._wire import Wire, post
from edgefleet_agent.runtime.onnx_engine import OnnxSession

OURS = "ours"
_UNCOUNTED, _COUNTED = 2, 10
Figures = dict[str, float]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def v1_json(path: str) -> _peers.Way:
    """TensorFlow Serving's REST API."""
    return _peers.Way(
        lambda x: post(path, json.dumps({"instances": x.tolist()}).encode()),
        lambda reply: np.array(json.loads(reply.body)["predictions"], np.float32).ravel(),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of request to one server, and what must come back."""

    way: _peers.Way
    address: str
    x: np.ndarray
    expected: np.ndarray

    def check(self) -> None:
        """Ask once, on a connection of its own, and compare."""
        with Wire(self.address) as wire:
            reply = wire.ask(self.way.make(self.x))
        if reply.status != 200:
            raise SystemExit(f"{self.address}: {reply.status} {reply.body[:300]!r}")
        found = self.way.read(reply)
        assert np.array_equal(found, self.expected.ravel()), (
            f"{self.address}: {found} is not {self.expected}"
        )

    def opened(self, running: ExitStack) -> Callable[[], None]:
        """What asks again and again, on one connection."""
        wire = running.enter_context(Wire(self.address))
        request = self.way.make(self.x)

        def ask() -> None:
            status = wire.ask(request).status
            assert status == 200, status

        return ask


class Bench:
    """All servers with one model, and what is measured of them."""

    def __init__(self, name: str, net: Net, pythons: dict[str, Path]) -> None:
        self.name, self.net, self.pythons = name, net, pythons
        self.x = net.row()
        self.session = OnnxSession(net.raw, threads=1)
        self.calls: dict[tuple[str, str], Call] = {}
        self.trees: dict[str, int] = {}

    def start(self, running: ExitStack) -> None:
        """Start every server; each answers each kind of request once, and rightly."""
        expected = self.session.run({"x": self.x})["y"]
        device = running.enter_context(installed(self.name, self.net))
        self.trees[OURS] = device.pid
        infer = f"/v2/models/{self.name}/infer"
        for key, way, address in (
            ("binary", _peers.v2_binary(infer), device.tcp),
            ("unix_binary", _peers.v2_binary(infer), device.unix),
            ("json", _peers.v2_json(infer), device.tcp),
            ("v1_json", v1_json(f"/v1/models/{self.name}:predict"), device.tcp),
        ):
            self.calls[OURS, key] = Call(way, address, self.x, expected)
        model = Path(running.enter_context(tempfile.TemporaryDirectory())) / "model.onnx"
        model.write_bytes(self.net.raw)
        for peer in tuple(self.pythons):
            try:
                at = running.enter_context(_peers.served(peer, self.pythons[peer], model))
            except _peers.Unavailable as error:
                say(f"left out: {error}")
                del self.pythons[peer]
                continue
            self.trees[peer] = at.pid
            for key, way in _peers.PEERS[peer].ways.items():
                self.calls[peer, key] = Call(way, at.address, self.x, expected)
        for call in self.calls.values():
            call.check()

    def latencies(self, rounds: int) -> Figures:
        """Percentiles of every way over the bare call's.

        A round has some requests of each way, in an order drawn anew. The first ones of each find
        the caches and the processor as another server left them, and do not count.
        """
        ways: dict[tuple[str, str], Callable[[], object]] = {
            ("raw", "raw"): lambda: self.session.run({"x": self.x})
        }
        order = random.Random(1)
        with ExitStack() as running:
            ways |= {name: call.opened(running) for name, call in self.calls.items()}
            seconds: dict[tuple[str, str], list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in order.sample(list(ways.items()), len(ways)):
                    for number in range(_UNCOUNTED + _COUNTED):
                        start = time.perf_counter()
                        way()
                        if number >= _UNCOUNTED:
                            seconds[name].append(time.perf_counter() - start)
        cuts = {n: statistics.quantiles(taken, n=100) for n, taken in seconds.items()}
        p50 = {name: cut[49] for name, cut in cuts.items()}
        raw = cuts.pop(("raw", "raw"))
        found = {"raw_ms": raw[49] * 1e3}
        for (server, way), cut in cuts.items():
            prefix = way if server == OURS else f"{server}_{way}"
            found[f"{prefix}_p50_over_raw"] = cut[49] / raw[49]
            found[f"{prefix}_p99_over_raw"] = cut[98] / raw[98]
            if server == OURS:
                found[f"{prefix}_added_ms"] = (cut[49] - raw[49]) * 1e3
        for peer in self.pythons:
            best = min(p50[peer, way] for way in _peers.PEERS[peer].ways)
            found[f"{peer}_over_ours"] = best / p50[OURS, "binary"]
        return found

    def processor(self, requests: int) -> Figures:
        """What a request costs its server in processor time, ms: as good as blind to other load."""
        found: Figures = {}
        with ExitStack() as running:
            for (server, way), call in self.calls.items():
                ask = call.opened(running)
                ask()
                before = run_ns(self.trees[server])
                for _ in range(requests):
                    ask()
                taken = run_ns(self.trees[server]) - before
                prefix = way if server == OURS else f"{server}_{way}"
                found[f"{prefix}_cpu_ms"] = taken / requests / 1e6
        return found

    def idle(self, seconds: float) -> Figures:
        """Of every tree, while nobody asks."""
        time.sleep(1)  # what the start left to do is done
        before = {name: cpu_s(pid) for name, pid in self.trees.items()}
        time.sleep(seconds)
        found: Figures = {}
        for name, pid in self.trees.items():
            prefix = "" if name == OURS else f"{name}_"
            found[f"{prefix}pss_mib"] = pss_mib(pid)
            found[f"{prefix}cpu_share"] = (cpu_s(pid) - before[name]) / seconds
        return found


def measure(pythons: dict[str, Path], rounds: int, idle_s: float) -> Figures:
    """The figures of one run."""
    figures: Figures = {}
    for name, make in NETS.items():
        say(f"{name}: starting {', '.join(('edge-agent', *pythons))}")
        bench = Bench(name, make(), pythons)
        with ExitStack() as running:
            bench.start(running)
            if name == "small":
                say(f"{name}: idle for {idle_s:g} s")
                figures |= {f"idle.{key}": value for key, value in bench.idle(idle_s).items()}
            say(f"{name}: {rounds} rounds of {len(bench.calls) + 1} ways")
            found = bench.latencies(rounds) | bench.processor(rounds * _COUNTED)
            figures |= {f"{name}.{key}": value for key, value in found.items()}
    return {key: round(value, 4 if key.endswith("_ms") else 3) for key, value in figures.items()}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="of ten requests a way (default 50)")
    parser.add_argument("--idle", type=float, default=10, help="seconds at rest (default 10)")
    parser.add_argument(
        "--peers",
        default=",".join(_peers.PEERS),
        help="which, with commas between; none: ours alone (default all)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(argv)
    names = [] if options.peers == "none" else options.peers.split(",")
    if unknown := sorted(set(names) - set(_peers.PEERS)):
        parser.error(f"no peer is called {', '.join(unknown)}: {', '.join(_peers.PEERS)}")
    pythons: dict[str, Path] = {}
    for name in names:
        try:
            pythons[name] = _peers.install(name, say)
        except _peers.Unavailable as error:
            say(f"left out: {error}")
    figures = measure(pythons, options.rounds, options.idle)
    if options.json:
        print(json.dumps(figures))
        return 0
    for key, value in figures.items():
        print(f"{key:>34} {value:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
