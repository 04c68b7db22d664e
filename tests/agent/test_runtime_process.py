"""The parent's end of a child: who waits for its end disturbs nobody, who gives up leaves nothing.

The steps of the loop are counted, not timed: each story is told once for every step at which what
happens in it may happen.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgefleet_agent.runtime.front_process import FrontProcess
from edgefleet_agent.runtime.process import ChildProcess, finish, spawn
from edgefleet_agent.runtime.worker_process import WorkerProcess
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_agent.serving.config import ModelConfig, ServingConfig
from tests.agent.models import linear_spec

PROBE = "tests.agent.fork_probe"


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


async def steps(count: int) -> None:
    """So many steps of every task."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_twice(work: Coroutine[Any, Any, object], *, apart: int = 1) -> None:
    """Begin it, and cancel it twice: it ends as one that was cancelled."""
    task = asyncio.create_task(work)
    await steps(2)
    task.cancel()
    await steps(apart)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("late", range(4))
def test_a_wait_that_is_cancelled_leaves_the_next_one_alone(late: int) -> None:
    """As the keeper's is, where a worker is ended while it dies."""

    async def story() -> int:
        process = await spawn(PROBE, "probe", threads=1)
        keeper = asyncio.create_task(process.wait())
        process.kill()
        for _ in iter(lambda: psutil.pid_exists(process.pid), False):
            await asyncio.sleep(0)
        await steps(late)
        keeper.cancel()
        await asyncio.wait([keeper])
        return await process.end()

    assert asyncio.run(story()) == -9


def test_what_must_not_be_half_done_is_done_however_often_it_is_cancelled() -> None:
    async def story() -> list[str]:
        done: list[str] = []
        gate = asyncio.Event()

        async def work() -> None:
            await gate.wait()
            done.append("all")

        task = asyncio.create_task(finish(work()))
        for _ in range(3):
            await steps(2)
            task.cancel()
        await steps(2)
        assert not task.done()
        gate.set()
        await asyncio.wait([task])
        assert task.cancelled()
        return done

    assert asyncio.run(story()) == ["all"]


@pytest.mark.parametrize("apart", [1, 2, 4])
def test_a_child_that_nobody_wants_any_more_is_put_down_however_often_it_is_given_up(
    apart: int,
) -> None:
    before = children()
    asyncio.run(cancelled_twice(spawn(PROBE, "probe", threads=1), apart=apart))
    assert children() <= before


def test_an_end_that_is_given_up_leaves_no_process_and_no_open_pipe() -> None:
    before = children()

    async def story() -> None:
        process = await spawn(PROBE, "probe", threads=1)
        await cancelled_twice(process.end())
        assert children() <= before  # it is reaped, and not by the loop's end

    asyncio.run(story())


def test_one_that_is_killed_comes_forward_to_end() -> None:
    """Beside others that want the processor it would keep its memory for as long."""

    async def story() -> None:
        process = await spawn(PROBE, "probe", threads=1)
        os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        process.kill()
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER  # it is not reaped yet
        await process.wait()

    asyncio.run(story())


def test_half_a_message_is_a_child_that_hung_up() -> None:
    """A process that is killed while it writes."""

    async def story() -> None:
        async with asyncio.timeout(60):
            (control, theirs), (stderr, other) = await channel(), await channel()
            process = ChildProcess("half", halves(theirs, other), control, stderr)
            assert await process.receive() == {"whole": True}
            assert await process.receive() is None
            assert await process.wait() == 0

    asyncio.run(story())


def halves(control: socket.socket, stderr: socket.socket) -> subprocess.Popen[bytes]:
    """A child that says one and a half."""
    says = f'import os; os.write({control.fileno()}, b\'{{"whole": true}}\\n{{"half": \')'
    program = [sys.executable, "-c", says]
    with control, stderr:
        return subprocess.Popen(program, pass_fds=[control.fileno()], stderr=stderr)


async def channel() -> tuple[tuple[asyncio.StreamReader, asyncio.StreamWriter], socket.socket]:
    ours, theirs = socket.socketpair()
    return await asyncio.open_connection(sock=ours), theirs


@pytest.mark.parametrize("what", ["worker", "front", "zygote"])
def test_who_is_cancelled_while_it_ends_a_process_is_cancelled_and_the_process_is_gone(
    what: str, tmp_path: Path
) -> None:
    before = children()

    async def story() -> None:
        holder: WorkerProcess | FrontProcess | ZygoteProcess
        if what == "worker":
            spec = linear_spec(tmp_path, 1)
            holder = WorkerProcess("w1", spec, folder=tmp_path, serving=ModelConfig(), ready_s=60)
            assert await holder.start() is None
        elif what == "front":
            nobody = {"on_counts": lambda *_: None, "on_stuck": lambda *_: None}
            holder = FrontProcess(ServingConfig(), [], lan=[], **nobody)
            await holder.start()
        else:
            holder = ZygoteProcess(["onnxruntime"], threads=1)
            holder.start()
            await holder.settled()
        await cancelled_twice(holder.stop())
        assert children() <= before

    asyncio.run(story())
