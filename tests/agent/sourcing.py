"""Sources as real processes against a real host, and a plug-in package in a folder of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgefleet_agent.sources.config import parse_sources
from edgefleet_agent.sources.process import SourceProcess
from tests.agent.hosting import RunningHost

PLUGIN = '''
"""What goes wrong in a plug-in, each on demand."""

import ctypes
import os
import time
from pathlib import Path

import numpy as np

from edgefleet_agent.sources.plugin import Item, waiting

IS_LIVE = True


def available():
    return ""


def open(setup):
    return Trouble(setup)


class Trouble:
    def __init__(self, setup):
        self.setup = setup
        self.does = setup.options["does"]

    def __iter__(self):
        n = 0
        while True:
            value = float(n % 16)
            if self.does == "read":
                path = self.setup.base / self.setup.options["path"]
                try:
                    value = float(len(path.read_bytes()))
                except OSError as error:
                    value = -float(error.errno)
            elif self.does == "signal":
                try:
                    os.kill(int(self.setup.options["pid"]), 0)
                    value = 0.0
                except OSError as error:
                    value = -float(error.errno)
            yield Item(np.full((1, 64), value, np.float32), {"n": str(n), "value": str(value)})
            n += 1
            if n == 2 and self.does == "crash":
                ctypes.string_at(0)
            if n == 2 and self.does == "hang":
                time.sleep(3600)
            if n == 2 and self.does == "raise":
                raise RuntimeError("the sensor fell off")
            if n == 2 and self.does == "lie":
                self.setup.tell({"result": {"outputs": "\\n"}})
            if n == 2 and self.does == "shout":
                self.setup.tell({"nonsense": ["x"] * 100})
            if n == 2 and self.does == "roar":
                self.setup.tell({"say": "x" * 300_000})
            if self.does != "flood":
                yield from waiting(time.monotonic() + self.setup.every_s)

    def settle(self, item, outcome):
        pass

    def close(self):
        pass


class Appending:
    """A sink that is told where to append."""

    @staticmethod
    def available():
        return "only on Sundays"

    @staticmethod
    def open(setup):
        return Appending(setup.base / setup.options["path"])

    def __init__(self, path):
        self.path = path

    def send(self, answer, cause):
        with self.path.open("a") as file:
            file.write(f"{cause} {answer.metadata['n']} {answer.outputs['y'][0, 0]:g}\\n")

    def close(self):
        pass
'''
ENTRY_POINTS = """
[edgefleet.sources]
trouble = edgefleet_trouble
folder = edgefleet_trouble:nothing
broken = edgefleet_trouble:missing

[edgefleet.sinks]
appending = edgefleet_trouble:Appending
"""


def install_plugin(site: Path) -> None:
    """The package, as pip would have laid it out; `site` must be on the path."""
    site.mkdir(parents=True, exist_ok=True)
    (site / "edgefleet_trouble.py").write_text(PLUGIN)
    info = site / "edgefleet_trouble-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgefleet-trouble\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)


class RunningSource:
    """A source that runs, and what its `mqtt` sink told."""

    def __init__(self, here: RunningHost, base: Path, hidden: tuple[Path, ...], table: Any) -> None:
        (config,) = parse_sources([table], what="test")
        self.here = here
        self.results: list[Any] = []
        address = next(at for at in here.host.addresses if at.startswith("unix:"))
        self.process = SourceProcess(
            config,
            address=address,
            base=base,
            hidden=hidden,
            zygote=here.host.forker,
            on_result=self._found,
        )

    def _found(self, result: Any) -> None:
        if not isinstance(result["outputs"], list):
            raise ValueError("no result")
        self.results.append(result)

    @property
    def counts(self) -> Any:
        return self.process.counts


@contextmanager
def source(
    here: RunningHost, base: Path, *, hidden: tuple[Path, ...] = (), **table: Any
) -> Iterator[RunningSource]:
    """A source of this table, until the end of the block."""
    made = RunningSource(here, base, hidden, {"name": "s", "model": "digits", **table})
    started: list[asyncio.Task[None]] = []

    async def start() -> None:
        started.append(asyncio.create_task(made.process.run()))

    async def stop() -> None:
        started[0].cancel()
        with suppress(asyncio.CancelledError):
            await started[0]

    here.do(start())
    try:
        yield made
    finally:
        here.do(stop())
    assert made.process.pid is None
