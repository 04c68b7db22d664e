"""Long work that is given up at any moment, however often: it ends, and the next begins anew."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from edgefleet_agent.performer import Performer
from edgefleet_agent.ports import Canceled


class Connecting:
    """A transfer that has no socket yet when it is told to end for the first time."""

    def __init__(self) -> None:
        self.begun, self.connected = threading.Event(), threading.Event()
        self.told: list[str] = []

    def bring(self, *_: object, **__: object) -> None:
        self.begun.set()
        self.connected.wait()
        self.told.append("ended")
        raise Canceled("it")

    def cancel(self) -> None:
        self.told.append("cancel")
        if self.told.count("cancel") == 2:
            self.connected.set()

    def resume(self) -> None:
        self.told.append("resume")


@pytest.mark.parametrize("times", [1, 2])
def test_a_transfer_that_connects_when_it_is_given_up_ends_all_the_same(times: int) -> None:
    async def story() -> list[str]:
        bundles = Connecting()
        performer: Any = Performer.__new__(Performer)
        performer._bundles, performer.serving = bundles, {}

        class NoOrder:
            sources = ()

        bringing = asyncio.create_task(performer._bring(None, NoOrder, lambda *_: None))
        await asyncio.to_thread(bundles.begun.wait)
        for _ in range(times):
            bringing.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await asyncio.wait([bringing])
        assert bringing.cancelled()
        return bundles.told

    assert asyncio.run(story()) == ["cancel", "cancel", "ended", "resume"]
