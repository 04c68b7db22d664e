"""A model that keeps dying gives way while the agent is killed, at any call to the disk."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.shelf import serve
from tests.crash.board import Board, MemoryHost, Site, left_over, make_site
from tests.crash.stories import check_files
from tests.crash.trouble import Counting, Fault, Faulty


class Snapshots(Counting):
    """Copies of the device's folder, as a kill before each call would leave it."""

    def __init__(self, folder: Path, room: Path) -> None:
        super().__init__()
        self._folder, self._room = folder, room
        self.taken: list[Path] = []

    def ahead(self, number: int, name: str) -> None:
        self.taken.append(self._room / f"{number}-{name}")
        shutil.copytree(self._folder, self.taken[-1])


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    logging.disable(logging.CRITICAL)
    memory = Path("/dev/shm")  # a fresh folder below it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
    logging.disable(logging.NOTSET)


def new(room: Path) -> Path:
    """The folder of a device that knows nothing yet."""
    device = room / "device"
    device.mkdir(mode=0o700)
    return device


def keep_dying(board: Board) -> None:
    """The runtime says so of what serves."""
    assert isinstance(board.host, MemoryHost)
    board.host.tell(board.host.serving["digits"], "killed by SIGSEGV")


def is_settled_on_the_first(board: Board) -> bool:
    """Durably: what is committed is another."""
    committed = board.installer.device.slots["digits"].target.version
    return (board.version, committed, board.heard.is_settled) == (1, 1, True)


def told(board: Board) -> list[tuple[Phase, Reason | None]]:
    return [(phase, reason) for phase, reason, _ in board.heard.steps]


async def two_versions(folder: Path, site: Site) -> None:
    async with Board(folder, site) as board:
        for number in (1, 2):
            assert await board.follow(number) is Phase.COMMITTED


async def give_way(board: Board) -> None:
    assert board.version == 2
    board.heard.is_settled = False
    keep_dying(board)
    await board.until(lambda: is_settled_on_the_first(board))


async def judge(folder: Path, site: Site, *, is_over: bool) -> list[str]:
    """What is wrong with the next life, in which it dies again if it serves again."""
    wrong = check_files(folder)
    async with Board(folder, site) as board:
        if board.version not in ((1,) if is_over else (1, 2)):
            wrong.append(f"{board.version} serves")
        if board.version == 2:
            await give_way(board)
        board.take(3)  # which says version 2 once more
        await board.until(lambda: (Phase.REJECTED, Reason.QUARANTINED) in told(board))
        device = board.installer.device
        if board.version != 1 or device.slots["digits"].target.version != 1:
            wrong.append("does not stay with the version before")
    return wrong + [f"left over: {name}" for name in left_over(folder)]


def test_a_kill_at_any_call_of_giving_way_leaves_a_version_that_serves(room: Path) -> None:
    async def story() -> list[str]:
        with serve() as shelf:
            site = make_site(shelf, room / "site")
            device = new(room)
            await two_versions(device, site)
            disk = Snapshots(device, room)
            async with Board(device, site, disk) as board:
                begun = disk.count
                await give_way(board)
            points = disk.taken[begun:]
            assert len(points) >= 8  # two copies of the journal, each made durable
            wrong = [
                f"{word} ({point.name})"
                for point in points
                for word in await judge(point, site, is_over=False)
            ]
            return wrong + await judge(device, site, is_over=True)

    assert asyncio.run(story()) == []


@pytest.mark.parametrize("fault", Fault)
def test_a_disk_that_fails_while_it_gives_way_does_not_stop_it(room: Path, fault: Fault) -> None:
    """The version before serves at once, and stays once the disk is back."""

    async def story() -> None:
        with serve() as shelf:
            site = make_site(shelf, room / "site")
            device = new(room)
            await two_versions(device, site)
            calls = Counting()
            async with Board(device, site, calls) as board:
                at = calls.count + 1
            disk = Faulty(fault, at)
            async with Board(device, site, disk) as board:
                keep_dying(board)
                await board.until(lambda: board.version == 1)
                disk.mend()
                await board.until(lambda: is_settled_on_the_first(board))
            assert await judge(device, site, is_over=True) == []

    asyncio.run(story())
