"""The front's half of measuring: takes a job's bytes to a file, and the agent's answer to a client.

The front reads nothing of a job: whether it is signed, and by whom, is for the agent to say. One
job at a time; a client that hangs up ends its job. Spec: [api-12].
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from edgefleet_agent.serving.answer import Answer, busy, refuse
from edgefleet_agent.serving.config import ServingConfig

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]

ANSWERED: Final = "measured"
ASK, RUN, STOP = "ask", "run", "stop"
FILES: Final = "measure-*.tar"
"""Where jobs lie meanwhile; no front uses the name of another, whose job may still be ending."""
_MIB: Final = 1024 * 1024


class Gone(Exception):
    """The client hung up."""


class Measuring:
    """Carries jobs to the agent.

    Args:
        config: of serving; its `run_dir`, which is ours alone, is where jobs lie meanwhile.
        tell: sends the agent a message.
    """

    def __init__(self, config: ServingConfig, tell: Callable[[dict[str, object]], None]) -> None:
        self._config, self._tell = config, tell
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._made = 0
        self._is_busy = False

    def heard(self, message: dict[str, Any]) -> None:
        """An answer of the agent: `measured` (the number of what it answers), `status`, `body`."""
        future = self._waiting.get(message[ANSWERED])
        if future is not None and not future.done():
            future.set_result(Answer(message["status"], message["body"].encode()))

    async def invite(self) -> Answer:
        """What the agent says to who may measure."""
        number, future = self._ask(ASK)
        try:
            return await future
        finally:
            del self._waiting[number]

    async def run(self, receive: Receive) -> Answer:
        """The agent's answer to the job in a body.

        Raises:
            Gone: the client hung up; the job is ended.
        """
        if self._is_busy:
            return busy("another job is measured", (b"connection", b"close"))
        self._is_busy = True
        self._made += 1
        path = Path(self._config.run_dir) / FILES.replace("*", f"{os.getpid()}-{self._made}")
        try:
            refused = await self._take(receive, path)
            return refused or await self._wait(receive, path)
        finally:
            self._is_busy = False
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    async def _take(self, receive: Receive, path: Path) -> Answer | None:
        """Write the body to a file; the refusal where it is too large or too slow."""
        left = self._config.measure.max_mib * _MIB
        with path.open("xb") as file:
            more = True
            while more:
                try:
                    async with asyncio.timeout(self._config.request_s):
                        message = await receive()
                except TimeoutError:
                    text = f"nothing more of the job came within {self._config.request_s:g} s"
                    return refuse(408, text, (b"connection", b"close"))
                if message["type"] == "http.disconnect":
                    raise Gone
                piece, more = message.get("body", b""), message.get("more_body", False)
                left -= len(piece)
                if left < 0:
                    text = f"the job is larger than {self._config.measure.max_mib} MiB"
                    return refuse(413, text, (b"connection", b"close"))
                try:
                    file.write(piece)
                except OSError as error:
                    return refuse(507, f"the job cannot be kept: {error.strerror}")
        return None

    async def _wait(self, receive: Receive, path: Path) -> Answer:
        number, future = self._ask(RUN, path=str(path))
        hang_up = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait((future, hang_up), return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                self._tell({"measure": STOP, "number": number})
                await future  # the agent's word that all of it has ended
                raise Gone
            return future.result()
        finally:
            hang_up.cancel()
            del self._waiting[number]

    def _ask(self, what: str, **more: object) -> tuple[int, asyncio.Future[Answer]]:
        self._made += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._made] = future
        self._tell({"measure": what, "number": self._made, **more})
        return self._made, future


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
