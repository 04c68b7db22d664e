"""What loses its power: the device's installs, one after the other, on the disk that is cut.

    python -m tests.system.in_power STATE SITE check|install|forever [lazy] [shelf]

`check` prints what is on the disk and what is wrong with it; `install` brings the next version and
prints `ACK n`; `forever` goes on. `lazy` leaves out every fsync; `shelf` serves the blobs as well,
for a machine that nobody else is on. SITE is a file of `pack`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_contract.phases import Phase
from tests.agent.shelf import Shelf, serve
from tests.crash.board import Board, Site, servable
from tests.crash.stories import check_files
from tests.crash.trouble import Lazy

T = TypeVar("T")


def pack(site: Site, shelf: Shelf, file: Path) -> None:
    """A site with its blobs in a file."""
    file.write_bytes(pickle.dumps((site, shelf.blobs, shelf.server_address[1])))


def judge(state: Path) -> tuple[int | None, list[str]]:
    """The version that a start would serve, and what is wrong with the disk."""
    try:
        wrong = check_files(state)
        return (None if wrong else servable(state)), wrong
    except Exception as error:  # noqa: BLE001  # whatever a reader dies of is what is looked for
        return None, [f"cannot be read: {error!r}"]


class Here(ThreadPoolExecutor):
    """Runs everything in the one thread that there is: strace counts calls thread by thread."""

    def submit(self, work: Callable[..., T], /, *args: object, **more: object) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(work(*args, **more))
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
            done.set_exception(error)
        return done


async def install(state: Path, site: Site, fs: FileSystem, *, forever: bool) -> None:
    """The next version; or all that there are."""
    if not forever:
        asyncio.get_running_loop().set_default_executor(Here())
    async with Board(state, site, fs) as board:
        number = (board.version or 0) + 1
        while number < len(site.orders):
            assert await board.follow(number) is Phase.COMMITTED
            sys.stdout.write(f"ACK {number}\n")
            sys.stdout.flush()
            if not forever:
                break
            number += 1


def main(argv: list[str]) -> None:
    """See the module."""
    logging.disable(logging.CRITICAL)
    state, file, act, *flags = argv
    site, blobs, port = pickle.loads(Path(file).read_bytes())
    if act == "check":
        version, wrong = judge(Path(state))
        print(f"CHECK {json.dumps([version, wrong])}", flush=True)
        return
    fs = Lazy() if "lazy" in flags else FileSystem()
    with serve(port) if "shelf" in flags else nullcontext() as shelf:
        if shelf is not None:
            shelf.blobs = blobs
        asyncio.run(install(Path(state), site, fs, forever=act == "forever"))


if __name__ == "__main__":
    main(sys.argv[1:])
