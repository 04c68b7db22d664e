"""The parent's end of a child: who waits for its end disturbs nobody else who does."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from edgefleet_agent.runtime.process import spawn


@pytest.mark.parametrize("late", range(4))
def test_a_wait_that_is_cancelled_leaves_the_next_one_alone(late: int) -> None:
    """As the keeper's is, where a worker is ended while it dies."""

    async def story() -> int:
        process = await spawn("tests.agent.fork_probe", "probe", threads=1)
        keeper = asyncio.create_task(process.wait())
        process.kill()
        for _ in iter(lambda: psutil.pid_exists(process.pid), False):
            await asyncio.sleep(0)
        for _ in range(late):
            await asyncio.sleep(0)  # a step of every task
        keeper.cancel()
        await asyncio.wait([keeper])
        return await process.end()

    assert asyncio.run(story()) == -9
