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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_contract.phases import Phase
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

    def live(self, life: Callable[[Any, int], None]) -> tuple[bool, str]:
        """Run this in a process; whether it was killed, and what it wrote to its descriptor."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(pickle.dumps(life).hex(), file=self._process.stdin, flush=True)
        was_killed, said = json.loads(self._process.stdout.readline())
        return was_killed, said

    def install(
        self, folder: Path, at: int, *, in_the_middle: bool = False, is_real: bool = False
    ) -> Lived:
        """Version 2 over version 1 in a state folder, killed at call `at` (0: not at all)."""
        life = partial(install, folder=folder, at=at, in_the_middle=in_the_middle, is_real=is_real)
        was_killed, calls = self.live(life)
        return Lived(was_killed, int(calls or 0))


def make_host(*, is_real: bool) -> Host:
    """The runtime, or what stands in for it."""
    return LocalHost(ServingConfig(listen=("127.0.0.1:0",))) if is_real else MemoryHost()


def install(
    site: Site, out: int, *, folder: Path, at: int, in_the_middle: bool, is_real: bool
) -> None:
    """A life that installs version 2; it writes the number of its calls."""

    async def follow() -> None:
        async with Board(folder, site, fs, host=make_host(is_real=is_real)) as board:
            assert await board.follow(2) is Phase.COMMITTED

    fs = Killing(at, in_the_middle=in_the_middle)
    asyncio.run(follow())
    os.write(out, str(fs.count).encode())


def main(file: str) -> None:
    logging.disable(logging.CRITICAL)
    site = pickle.loads(Path(file).read_bytes())
    for line in sys.stdin:
        life = pickle.loads(bytes.fromhex(line))
        out, into = os.pipe()
        child = os.fork()
        if not child:
            life(site, into)
            os._exit(0)
        os.close(into)
        with os.fdopen(out) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        assert said or os.WIFSIGNALED(status), "a life ended with an error"
        print(json.dumps([os.WIFSIGNALED(status), said]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
