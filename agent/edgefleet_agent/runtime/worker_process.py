"""The agent's hold on one worker: started until ready, restarted when it dies, ended.

The agent owns the socket that the worker accepts on. It stays bound while a dead worker is
replaced, so that the front's next connection waits in the kernel for the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import psutil

from edgefleet_agent.ports import Failed, ModelSpec
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.loading import job_for, render_job
from edgefleet_agent.runtime.process import ChildProcess, Forker, finish, spawn, watched
from edgefleet_contract.reasons import Reason

_log = logging.getLogger(__name__)

MODULE: Final = "edgefleet_agent.runtime.worker"
_BACKOFF_S: Final = 0.25
_LONGEST_BACKOFF_S: Final = 30.0
_SETTLED_S: Final = 60.0


class WorkerProcess:
    """A worker of one model version and those that replace it.

    Args:
        id: unique in the agent's life.
        spec: what it serves.
        folder: of our own, for its socket.
        threads: of one inference.
        ready_s: how long it may take to load.
        accelerators: what it may run on; None: the runtime as it comes.
        zygote: forks it where that works.
    """

    def __init__(
        self,
        id: str,  # noqa: A002  # what it is
        spec: ModelSpec,
        *,
        folder: Path,
        threads: int,
        ready_s: float,
        accelerators: Accelerators | None = None,
        zygote: Forker | None = None,
    ) -> None:
        self.id, self.spec = id, spec
        self.accelerator = ""
        self.passed_over: tuple[str, ...] = ()
        self._accelerators = accelerators or Accelerators()
        self.path = folder / f"{id}.sock"
        self.restarts = 0
        self._name = f"worker {spec.slot} {spec.model}@{spec.version}"
        self._threads, self._ready_s = threads, ready_s
        self._zygote = zygote
        self._listener: socket.socket | None = None
        self._process: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that is ready; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def passed_over_names(self) -> set[str]:
        """The accelerators that come before what it runs on."""
        return {line.partition(":")[0] for line in self.passed_over}

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process; 0 while there is none."""
        if self._process is None:
            return 0
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    async def start(self) -> Failed | None:
        """Load and warm up; None once it is ready and will be kept alive."""
        try:
            self._listener = listen_at(self.path)
        except OSError as error:
            return Failed(Reason.INTERNAL, f"{self._name}: cannot listen: {error.strerror}")
        launched = await self._launch(self._listener)
        if isinstance(launched, Failed):
            return launched
        self._process = launched
        keeping = self._keep(self._listener)
        self._keeper = watched(asyncio.create_task(keeping, name=f"keeper of {self._name}"))
        return None

    def kill(self, pid: int) -> None:
        """SIGKILL, if it is still the process with this pid; a new one will take its place."""
        if self._process is not None and self._process.pid == pid:
            _log.warning("%s: overran its deadline, killed (pid %d)", self._name, pid)
            self._process.kill()

    async def stop(self) -> None:
        """End it for good; no process and no socket are left."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        process, self._process = self._process, None
        if process is not None:
            await process.end()
        if self._listener is not None:
            self._listener.close()
            self.path.unlink(missing_ok=True)

    async def _keep(self, listener: socket.socket) -> None:
        """Replace whatever dies, at once the first time, then with growing pauses."""
        pause = 0.0
        while True:
            assert self._process is not None
            begun = time.monotonic()
            code = await self._process.wait()
            words = self._process.last_words(code)
            self._process = None
            self.restarts += 1
            if time.monotonic() - begun > _SETTLED_S:
                pause = 0.0
            _log.warning("%s: died, %s; restart in %g s", self._name, words, pause)
            while self._process is None:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_BACKOFF_S, max(_BACKOFF_S, pause * 2))
                launched = await self._launch(listener)
                if isinstance(launched, Failed):
                    _log.warning("%s: restart failed: %s", self._name, launched.detail)
                else:
                    self._process = launched

    async def _launch(self, listener: socket.socket) -> ChildProcess | Failed:
        try:
            process = await spawn(
                MODULE,
                self._name,
                threads=self._threads,
                sockets={"listen": listener},
                zygote=self._zygote,
            )
        except OSError as error:
            return Failed(Reason.INTERNAL, f"{self._name}: {error.strerror}")
        try:
            job = job_for(self.spec, threads=self._threads, accelerators=self._accelerators)
            process.send(render_job(job))
            async with asyncio.timeout(self._ready_s):
                message = await process.receive()
            if message is None:
                words = process.last_words(await process.wait())
                return Failed(Reason.TRIAL_CRASHED, f"it died while loading, {words}")
        except TimeoutError:
            await process.put_down()
            return Failed(Reason.TRIAL_TIMEOUT, f"it was not ready within {self._ready_s:g} s")
        except asyncio.CancelledError:
            await finish(process.put_down())
            raise
        if "failed" in message:
            await process.end()
            return Failed(Reason(message["failed"]), message["detail"])
        self._took(message["accelerator"], tuple(message["passed_over"]))
        _log.info(
            "%s: ready in %.0f ms on %s (pid %d)",
            self._name,
            message["load_ms"],
            self.accelerator,
            process.pid,
        )
        return process

    def _took(self, accelerator: str, passed_over: tuple[str, ...]) -> None:
        """Keep what it runs on, which has now passed; say what it does not, where that is news."""
        for line in passed_over:
            if line not in self.passed_over:
                _log.warning("%s: passed over %s", self._name, line)
        self.accelerator, self.passed_over = accelerator, passed_over
        self._accelerators = replace(self._accelerators, proven=accelerator)


def listen_at(path: Path) -> socket.socket:
    """A Unix socket for nobody but us, in our own folder."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen()
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock
