"""The kill matrix: states of the install machine by faults by two devices, each for real.

A case leads a device into a state, lets a fault strike there in a process that is really killed,
mends what was broken, and gives the order again, as a broker does. In the end comes another order,
which every device must be able to follow. What cannot be is named, with the reason.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgefleet_agent.adapters.journal import COPIES
from tests.agent.shelf import serve
from tests.crash import actor
from tests.crash.board import Board
from tests.crash.cases import FAULTS, SCENES, Cell, Life, Start, cells, claim
from tests.crash.lives import Lives
from tests.crash.moments import Moment, What, read, violations
from tests.crash.region import Region, make_region
from tests.crash.runs import Row
from tests.crash.squares import Square
from tests.crash.strikes import Script


@dataclass(frozen=True, slots=True)
class Theater:
    """Where cases are played: the region, the source of lives, two prepared devices."""

    region: Region
    lives: Lives
    room: Path

    def play(self, cell: Cell, lives: tuple[Life, ...], *, mutant: str = "") -> list[str]:
        """What is wrong with a case."""
        folder = self.room / "device"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.room / cell.start.name, folder)
        lived, orders = list[list[Moment]](), cell.scene.orders
        well = Life(says=cell.fault.says, again=cell.fault.again, last="last")
        for life in (*lives, well):
            orders = (life.again,) if life.again else orders
            script = Script(
                folder, cell.scene.state, cell.scene.number, orders, cell.scene.bad, life, mutant
            )
            _, said = self.lives.live(partial(actor.live, script=script))
            lived.append(read(said))
            spoil(folder, life.loses)
            orders = orders[-1:]
        missed = [
            "the fault never struck"
            for life, moments in zip(lives, lived, strict=False)
            if life.strikes and not any(moment.what == What.STRUCK for moment in moments)
        ]
        return [*missed, *violations(lived, claim(cell))]

    def play_all(self, *, every: int = 1) -> list[Cell]:
        """The matrix, or each n-th case of it."""
        found, number = cells(), 0
        for cell in found:
            for play in () if cell.why_not else cell.fault.plays:
                number += 1
                if number % every == 0:
                    cell.tried += 1
                    cell.wrong += self.play(cell, play)
        return found


def spoil(folder: Path, copies: int) -> None:
    """Turn a bit in the middle of the newest copies of the journal."""

    def generation(path: Path) -> int:
        return int(path.read_bytes().partition(b" ")[0])

    paths = [folder / name for name in COPIES if (folder / name).exists()]
    for path in sorted(paths, key=generation, reverse=True)[:copies]:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)


@contextmanager
def theater(room: Path) -> Iterator[Theater]:
    """Everything is there until the block ends."""

    async def install(region: Region) -> None:
        async with Board(room / Start.STANDING.name, region) as board:
            for number, name in enumerate(("old", "base"), 1):
                board.installer.order_arrived(region.named[name])
                await board.until(lambda: board.is_over(number))  # noqa: B023 # called at once

    with serve() as shelf:
        region = make_region(shelf, room / "region")
        for start in Start:
            (room / start.name).mkdir(mode=0o700)
        asyncio.run(install(region))
        with Lives(region, room) as lives:
            yield Theater(region, lives, room)


def rows(room: Path) -> list[Row]:
    """The whole matrix, for the table."""
    with theater(room) as stage:
        found = stage.play_all()
    where = f"{len(SCENES)} states of an install, {len(FAULTS)} faults, {len(Start)} devices"
    wrong = [f"{word} ({cell.name})" for cell in found for word in cell.wrong]
    squares = [
        Square(c.scene.state, c.start, c.fault.name, c.tried, len(c.wrong), c.why_not)
        for c in found
    ]
    return [Row("kill matrix", where, sum(c.tried for c in found), wrong, squares=squares)]
