"""The front's side of a worker that is given up at an odd moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgefleet_agent.serving.link import Link


def test_a_worker_that_has_not_greeted_yet_is_hung_up_on(tmp_path: Path) -> None:
    async def story() -> None:
        hung_up = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            hung_up.set()

        path = tmp_path / "w1.sock"
        async with await asyncio.start_unix_server(silent, path), asyncio.timeout(60):
            link = Link(
                str(path), limit=1, deadline_s=60, on_stuck=lambda _: None, on_idle=lambda: None
            )
            await asyncio.wait([link._connecting])
            assert not link.is_up
            link.close()
            await hung_up.wait()

    asyncio.run(story())
