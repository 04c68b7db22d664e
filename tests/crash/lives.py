"""Lives of a device in processes of their own, which may be killed: `with Lives(site) as lives`.

`python -m tests.crash.lives FILE` is the process that they come from: it has imported everything
once, and forks a child for each life that is asked for on its standard input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_contract.messages import Phase
from tests.crash.board import Board, Host, MemoryHost, Site
from tests.crash.trouble import Killing

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Lived:
    """How a life ended: killed, or after so many calls."""

    was_killed: bool
    calls: int


class Lives:
    """The process that lives come from."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._file = folder / "site.pickle"
        self._file.write_bytes(pickle.dumps(site))

    def __enter__(self) -> Lives:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def install(
        self, folder: Path, at: int, *, in_the_middle: bool = False, is_real: bool = False
    ) -> Lived:
        """Version 2 over version 1 in a state folder, killed at call `at` (0: not at all)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps([str(folder), at, in_the_middle, is_real]),
            file=self._process.stdin,
            flush=True,
        )
        killed, calls = json.loads(self._process.stdout.readline())
        return Lived(killed, calls)


def make_host(*, is_real: bool) -> Host:
    """The runtime, or what stands in for it."""
    return LocalHost(ServingConfig(listen=("127.0.0.1:0",))) if is_real else MemoryHost()


async def _live(site: Site, folder: Path, fs: Killing, host: Host) -> None:
    async with Board(folder, site, fs, host=host) as board:
        assert await board.follow(2) is Phase.COMMITTED


def main(file: str) -> None:
    logging.disable(logging.CRITICAL)
    site = pickle.loads(Path(file).read_bytes())
    for line in sys.stdin:
        folder, at, in_the_middle, is_real = json.loads(line)
        out, into = os.pipe()
        child = os.fork()
        if not child:
            fs = Killing(at, in_the_middle=in_the_middle)
            asyncio.run(_live(site, Path(folder), fs, make_host(is_real=is_real)))
            os.write(into, str(fs.count).encode())
            os._exit(0)
        os.close(into)
        with os.fdopen(out) as pipe:
            calls = pipe.read()
        _, status = os.waitpid(child, 0)
        assert calls or os.WIFSIGNALED(status), "a life ended with an error"
        print(json.dumps([os.WIFSIGNALED(status), int(calls or 0)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
