"""The enumerations, each giving rows of the table: points tried, and what was violated."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.shelf import serve
from tests.crash.board import Board, Site, left_over, make_site, servable
from tests.crash.lives import Lives, make_host
from tests.crash.simulator import InPlace, Recorder, explore, sites
from tests.crash.squares import Square
from tests.crash.stories import Story, check_files, stories
from tests.crash.table import Count
from tests.crash.trouble import Fault, Faulty

NEEDLESS = frozenset({"Renewal.take: fsync of the folder"})
"""Nothing hangs on it: what it brings to the disk is given its place, and synced, right after."""
CANDIDATES = frozenset({"certificate"})
"""Stories whose files are written beside what serves: overwriting those harms nothing."""


@dataclass
class Row:
    """A fault, where it struck, at how many points, and what broke.

    A control leaves out what makes a write durable: there, something must break. `squares` are what
    the points of the kill matrix are made of.
    """

    fault: str
    where: str
    points: int = 0
    violations: list[str] = field(default_factory=list)
    is_control: bool = False
    squares: list[Square] = field(default_factory=list)

    @property
    def count(self) -> Count:
        """The row as the table has it."""
        return Count(
            self.fault, self.where, self.points, len(self.violations), is_control=self.is_control
        )


@contextmanager
def installed(room: Path, *, is_real: bool = False) -> Iterator[tuple[Site, Path]]:
    """A site, and the state folder of a device that runs version 1."""

    async def install(folder: Path) -> None:
        async with Board(folder, site) as board:
            assert await board.follow(1) is Phase.COMMITTED

    with serve() as shelf:
        site = make_site(shelf, room / "site", is_real=is_real)
        first = room / "first"
        first.mkdir(mode=0o700)
        asyncio.run(install(first))
        yield site, first


def fresh(first: Path) -> Path:
    """A copy of the device to do harm to."""
    folder = first.with_name("device")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(first, folder)
    return folder


def states(room: Path, *, every: int = 1) -> list[Row]:
    """A power cut after every call of every story: each disk that may be left.

    The files of each are looked at; the agent is started on each, or each n-th.
    """
    rows = []
    with stories(room) as told:
        for story in told:
            recorder = _told(story, room)
            checks = {"its files": (story.quick, 1), "a start on it": (story.check, every)}
            for what, (check, step) in checks.items():
                found = explore(recorder, check, room / "cut", every=step)
                where = f"{story.name}: {found.calls} calls; {what}"
                wrong = [*found.wrong.elements()]
                rows.append(Row("power cut (simulated)", where, found.states, wrong))
                if story.quick is story.check:
                    break
    return rows


def mutants(room: Path) -> list[Row]:
    """The same without each fsync in turn, and with files overwritten: something must break."""
    rows: dict[str, Row] = {}
    with stories(room) as told:
        for story in sorted(told, key=lambda item: item.name, reverse=True):
            recorder = _told(story, room)
            for site in (name for name in sites(recorder) if name not in NEEDLESS):
                row = rows.setdefault(site, Row(f"without {site}", "", is_control=True))
                if not row.violations:
                    found = explore(recorder, story.quick, room / "cut", without=site, enough=1)
                    row.where, row.points = story.name, row.points + found.states
                    row.violations += found.wrong.elements()
            if story.name in CANDIDATES:
                continue
            found = explore(_told(story, room, InPlace), story.quick, room / "cut", enough=1)
            rows[story.name] = Row(
                "overwritten instead of replaced",
                story.name,
                found.states,
                [*found.wrong.elements()],
                is_control=True,
            )
    return list(rows.values())


def _told(story: Story, room: Path, kind: type[Recorder] = Recorder) -> Recorder:
    folder = room / "told"
    shutil.rmtree(folder, ignore_errors=True)
    story.prepare(folder)
    recorder = kind(folder)
    story.tell(recorder)
    return recorder


def kills(room: Path, *, is_real: bool = False, every: int = 1) -> list[Row]:
    """SIGKILL before every call of an install, and in the middle of every write."""
    runtime = "real runtime" if is_real else "runtime in memory"
    row = Row("kill -9", f"between all calls of an install ({runtime})")
    with installed(room, is_real=is_real) as (site, first), Lives(site, room) as lives:
        calls = lives.install(fresh(first), 0, is_real=is_real).calls
        for at in range(1, calls + 1, every):
            for in_the_middle in (False,) if is_real else (False, True):
                folder = fresh(first)
                lived = lives.install(folder, at, in_the_middle=in_the_middle, is_real=is_real)
                if not lived.was_killed and at < calls - 2:
                    row.violations.append(f"call {at} never came")
                row.points += 1
                wrong = check_files(folder) or asyncio.run(recover(folder, site, is_real=is_real))
                row.violations += [f"{word} (call {at})" for word in wrong]
    return [row]


async def recover(folder: Path, site: Site, *, is_real: bool) -> list[str]:
    """What is wrong with the next start, and with where it leads."""
    before = servable(folder)
    async with Board(folder, site, host=make_host(is_real=is_real)) as board:
        if before is None or board.version != before:
            return [f"{board.version} serves, {before} is committed"]
        ended = await board.follow(2)
        wrong = [] if (ended, board.version) == (Phase.COMMITTED, 2) else [f"it ends {ended}"]
        if board.installer.device.quarantined:
            wrong.append("quarantined")
    return wrong + [f"left over: {name}" for name in left_over(folder)]


def faults(room: Path, *, every: int = 1) -> list[Row]:
    """Each fault at every call of an install: it ends or says so, and goes on once mended."""
    rows = []
    with installed(room) as (site, first):
        for fault in Fault:
            row = Row(fault, "every call of an install")
            rows.append(row)
            at = 1
            while True:
                disk = Faulty(fault, at)
                wrong = asyncio.run(_suffer(fresh(first), site, disk, fault))
                if disk.count < at:
                    break
                if disk.hits:
                    row.points += 1
                    row.violations += [f"{word} (call {at})" for word in wrong]
                at += every
    return rows


async def _suffer(folder: Path, site: Site, disk: Faulty, fault: Fault) -> list[str]:
    wrong: list[str] = []
    try:
        async with Board(folder, site, disk) as board:
            if board.version != 1:
                wrong.append("1 does not serve at the start")
            board.take(2)
            await board.until(
                lambda: board.is_over(2) or (not fault.is_passing and _has_complained(board))
            )
            if "digits" not in board.host.serving:
                wrong.append("nothing serves")
            if not fault.is_passing:
                wrong += await _start_on(folder, site, fault)
            disk.mend()
            await board.until(lambda: board.is_over(2))
            ended = board.installer.device.phase
            if ended is not Phase.COMMITTED:
                if board.heard.steps[-1][1] not in (Reason.STORAGE_FAILED, Reason.NO_SPACE):
                    wrong.append(f"it ends {board.heard.steps[-1]}")
                if board.version != 1:
                    wrong.append("1 does not serve after a failure")
                ended = await board.follow(3)
            if (ended, board.version) != (Phase.COMMITTED, 2):
                wrong.append(f"mended, it ends {ended}")
            if board.installer.device.quarantined:
                wrong.append("quarantined")
        async with Board(folder, site) as board:
            await board.until(lambda: board.heard.is_settled)
            if board.version != 2:
                wrong.append("2 does not serve at the next start")
    except Exception as error:  # noqa: BLE001  # whatever the agent dies of is what is looked for
        return [*wrong, f"the agent dies: {error!r}"]
    return wrong + [f"left over: {name}" for name in left_over(folder)]


def _has_complained(board: Board) -> bool:
    return any(
        reason in (Reason.STORAGE_FAILED, Reason.NO_SPACE) for _, reason, _ in board.heard.steps
    )


async def _start_on(folder: Path, site: Site, fault: Fault) -> list[str]:
    """What is wrong with a start while the disk is as bad as that."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    before = servable(copy)
    async with Board(copy, site, Faulty(fault, 1)) as board:
        return [] if board.version == before else ["a start on this disk serves something else"]
