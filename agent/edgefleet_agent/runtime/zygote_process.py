"""The agent's hold on the zygote: started, asked for forks, replaced when it dies or hangs.

Nothing depends on it: while there is none, `fork` says so, and children are started as programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable
from typing import Any, Final

from edgefleet_agent.runtime.engines import available
from edgefleet_agent.runtime.process import ChildProcess, finish, give_up, spawn, watched
from edgefleet_agent.runtime.zygote import FORKED, MAX_REQUEST

_log = logging.getLogger(__name__)

MODULE: Final = "edgefleet_agent.runtime.zygote"
_START_S: Final = 30.0
_FORK_S: Final = 3.0
_BACKOFF_S: Final = 0.1
_LONGEST_BACKOFF_S: Final = 300.0
_SETTLED_S: Final = 60.0


class ZygoteProcess:
    """The zygote, and those that replace it: `async with ZygoteProcess(…) as zygote`.

    Args:
        engines: the runtimes that it imports; empty: all that are installed.
        threads: of one inference, which some runtimes read from their environment.
    """

    def __init__(self, engines: Iterable[str] = (), *, threads: int) -> None:
        installed = available()
        self._engines = [name for name in engines or installed if name in installed]
        self._threads = threads
        self._process: ChildProcess | None = None
        self._requests: socket.socket | None = None
        self._exchange = asyncio.Lock()
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the one that forks; None while there is none."""
        process = self._process
        return None if process is None or self._requests is None else process.pid

    async def __aenter__(self) -> ZygoteProcess:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to keep one. That it does not come up is no error: it is tried again."""
        self._keeper = watched(asyncio.create_task(self._keep(), name="keeper of the zygote"))

    async def stop(self) -> None:
        """End it for good, also if cancelled meanwhile; its forks stay."""
        await finish(self._stop())

    async def _stop(self) -> None:
        if self._keeper is not None:
            await give_up(self._keeper)
        async with self._exchange:
            self._hang_up()
            process, self._process = self._process, None
            if process is not None:
                await process.end()
                _clear_away(process.pid)

    async def settled(self) -> None:
        """Wait for the first to come up, or not: a program would have to import the same."""
        if self._keeper is not None:
            await self._tried.wait()

    async def fork(self, module: str, sockets: dict[str, socket.socket]) -> int | None:
        """The pid of a child of ours that runs `module`; None if it has to be started otherwise.

        It is to be done to its end: whoever gives up in the middle loses the child.
        """
        if module not in FORKED:
            return None
        async with self._exchange:
            if self._requests is None:
                return None
            answer = await self._ask(self._requests, module, sockets)
            if answer is None:
                _log.warning("zygote: does not answer, killed")
                self._give_up()
                return None
            if "pid" not in answer:
                _log.warning("zygote: cannot fork: %s", answer["failed"])
                return None
            pid = int(answer["pid"])
            os.setpgid(pid, pid)  # from here on it is ours, and not ended with the zygote's group
            return pid

    async def _ask(
        self, requests: socket.socket, module: str, sockets: dict[str, socket.socket]
    ) -> dict[str, Any] | None:
        request = json.dumps({"module": module, "names": list(sockets)}).encode()
        try:
            async with asyncio.timeout(_FORK_S):
                socket.send_fds(requests, [request], [sock.fileno() for sock in sockets.values()])
                raw = await asyncio.get_running_loop().sock_recv(requests, MAX_REQUEST)
        except (OSError, TimeoutError):
            return None
        answer: dict[str, Any] | None = json.loads(raw) if raw else None
        return answer

    def _hang_up(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def _give_up(self) -> None:
        """Kill it, and a fork that it has not told us of."""
        self._hang_up()
        if self._process is not None:
            self._process.kill()

    async def _keep(self) -> None:
        """Replace one that died, soon the first time, then with growing pauses."""
        pause = _BACKOFF_S
        while True:
            begun = time.monotonic()
            try:
                is_worth_it = await self._launch()
            finally:
                self._tried.set()
            if not is_worth_it:
                return
            if self._process is not None:
                await self._see_off(self._process)
            if time.monotonic() - begun > _SETTLED_S:
                pause = _BACKOFF_S
            await asyncio.sleep(pause)
            pause = min(_LONGEST_BACKOFF_S, pause * 2)

    async def _see_off(self, process: ChildProcess) -> None:
        words = process.last_words(await process.wait())
        async with self._exchange:  # a fork that we are just told of is not to be cleared away
            self._hang_up()
            self._process = None
            _clear_away(process.pid)
        _log.warning("zygote: died, %s", words)

    async def _launch(self) -> bool:
        """Start one, if it can be. False where it can never work."""
        while True:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            try:
                with theirs:
                    message = await self._begin(theirs)
            except OSError as error:
                ours.close()
                _log.warning("zygote: cannot be started: %s", error.strerror)
                return True
            except BaseException:
                ours.close()
                raise
            if "ready" in message:
                self._requests = ours
                return True
            ours.close()
            process, self._process = self._process, None
            if process is not None:
                words = process.last_words(await process.put_down())
            if "threaded" in message:
                _log.warning("zygote: %s starts threads, left out", message["threaded"])
                self._engines.remove(message["threaded"])
            elif "failed" in message:
                _log.warning("zygote: %s; children are started as programs", message["failed"])
                return False
            else:
                _log.warning("zygote: does not start: %s", words)
                return True

    async def _begin(self, requests: socket.socket) -> dict[str, Any]:
        """Start one; its first message, empty if there is none.

        Raises:
            OSError: the process cannot be made.
        """
        process = await spawn(
            MODULE, "zygote", threads=self._threads, sockets={"requests": requests}
        )
        try:
            process.send({"engines": self._engines})
            async with asyncio.timeout(_START_S):
                message = await process.receive()
        except TimeoutError:
            message = None
        except BaseException:
            await process.put_down()
            raise
        self._process = process
        return message or {}


def _clear_away(group: int) -> None:
    """End and reap the forks that a zygote made and did not tell of: those left in its group."""
    with contextlib.suppress(ChildProcessError):  # there are none (any more)
        while True:
            pid, _ = os.waitpid(-group, os.WNOHANG)
            if pid == 0:
                os.killpg(group, signal.SIGKILL)
                os.waitpid(-group, 0)
