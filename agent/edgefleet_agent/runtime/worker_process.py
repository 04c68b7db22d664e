"""The agent's hold on one worker: started until ready, restarted when it dies, ended.

The agent owns the socket that the worker accepts on. It stays bound while a dead worker is
replaced, so that the front's next connection waits in the kernel for the new one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psutil

from edgefleet_agent.ports import Failed, ModelSpec
from edgefleet_agent.runtime.cgroups import Cgroups
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.crash_loop import Deaths
from edgefleet_agent.runtime.drift_watch import DriftWatch
from edgefleet_agent.runtime.loading import job_for, render_job
from edgefleet_agent.runtime.process import ChildProcess, Forker, finish, give_up, spawn, watched
from edgefleet_agent.runtime.yielding import yielding
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract import codec
from edgefleet_contract.drift import Window
from edgefleet_contract.drift_reference import Reference
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
        serving: how.
        ready_s: how long it may take to load.
        accelerators: what it may run on; None: the runtime as it comes.
        zygote: forks it where that works.
        groups: where each gets a control group of its own.
        memory_bytes: the most that each may have; 0: no bound.
        on_drift: told that there is a new judgement in `drift`.
        on_loop: told once how it ended, when it ended too often; it is started again all the same.
    """

    def __init__(
        self,
        id: str,  # noqa: A002  # what it is
        spec: ModelSpec,
        *,
        folder: Path,
        serving: ModelConfig,
        ready_s: float,
        accelerators: Accelerators | None = None,
        zygote: Forker | None = None,
        groups: Cgroups | None = None,
        memory_bytes: int = 0,
        on_drift: Callable[[str], None] = lambda _id: None,
        on_loop: Callable[[ModelSpec, str], None] = lambda _spec, _words: None,
    ) -> None:
        self._on_drift = on_drift
        self.id, self.spec = id, spec
        self.accelerator = ""
        self.passed_over: tuple[str, ...] = ()
        self._accelerators = accelerators or Accelerators()
        self.drift: DriftWatch | None = None
        self.path = folder / f"{id}.sock"
        self.restarts = 0
        self._name = f"worker {spec.slot} {spec.model}@{spec.version}"
        self._serving, self._ready_s = serving, ready_s
        self._zygote, self._groups, self._memory_bytes = zygote, groups, memory_bytes
        self._on_loop, self._deaths, self._was_loop = on_loop, Deaths(), False
        self._listener: socket.socket | None = None
        self._process: ChildProcess | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that is ready; None while there is none."""
        process = self._process  # once: other threads ask, too, while the loop replaces it
        return None if process is None else process.pid

    @property
    def passed_over_names(self) -> set[str]:
        """The accelerators that come before what it runs on."""
        return {line.partition(":")[0] for line in self.passed_over}

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process; 0 while there is none."""
        if (pid := self.pid) is None:
            return 0
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return 0

    def listen(self) -> Failed | None:
        """Let the front connect, and wait for a process that is still to come."""
        if self._listener is None:
            try:
                self._listener = listen_at(self.path)
            except OSError as error:
                return Failed(Reason.INTERNAL, f"{self._name}: cannot listen: {error.strerror}")
        return None

    async def start(self, *, yields: bool = False) -> Failed | None:
        """Load and warm up; None once it is ready and will be kept alive.

        Args:
            yields: to others while it loads. One that takes the place of a dead one never does.
        """
        failed = self.listen()
        if failed is not None:
            return failed
        assert self._listener is not None
        launched = await self._launch(self._listener, yields=yields)
        if isinstance(launched, Failed):
            return launched
        self._process = launched
        self.keep()
        return None

    def keep(self) -> None:
        """Keep it alive from now on; one that is not there yet is started, and not waited for."""
        assert self._listener is not None, "nobody can reach it"
        keeping = self._keep(self._listener)
        self._keeper = watched(asyncio.create_task(keeping, name=f"keeper of {self._name}"))

    def kill(self, pid: int) -> None:
        """SIGKILL, if it is still the process with this pid; a new one will take its place."""
        if self._process is not None and self._process.pid == pid:
            _log.warning("%s: overran its deadline, killed (pid %d)", self._name, pid)
            self._process.kill()

    async def stop(self) -> None:
        """End it for good, also if cancelled meanwhile; no process and no socket are left."""
        await finish(self._stop())

    async def _stop(self) -> None:
        if self._keeper is not None:
            await give_up(self._keeper)
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
            while self._process is None:
                await asyncio.sleep(pause)
                pause = min(_LONGEST_BACKOFF_S, max(_BACKOFF_S, pause * 2))
                launched = await self._launch(listener)
                if isinstance(launched, Failed):
                    _log.warning("%s: restart failed: %s", self._name, launched.detail)
                    self._count(self._deaths.did_not_start(time.monotonic()), launched.detail)
                else:
                    self._process = launched
            begun = time.monotonic()
            code = await self._heed(self._process)
            words = self._process.last_words(code)
            self._process = None
            self.restarts += 1
            if time.monotonic() - begun > _SETTLED_S:
                pause = 0.0
            _log.warning("%s: died, %s; restart in %g s", self._name, words, pause)
            self._count(self._deaths.died(time.monotonic()), words)

    async def _heed(self, process: ChildProcess) -> int:
        """Take what it counts of requests until it ends; its exit code."""
        hearing = watched(asyncio.create_task(self._hear(process), name=f"drift of {self._name}"))
        try:
            return await process.wait()
        finally:
            hearing.cancel()

    async def _hear(self, process: ChildProcess) -> None:
        while (message := await process.receive()) is not None:
            if self.drift is not None and "drift" in message:
                window = codec.decode(Window, message["drift"], what="window")
                if self.drift.add(window):
                    self._on_drift(self.id)

    def _count(self, deaths: Deaths, words: str) -> None:
        self._deaths = deaths
        if deaths.is_loop and not self._was_loop:
            self._was_loop = True
            self._on_loop(self.spec, words)

    async def _launch(
        self, listener: socket.socket, *, yields: bool = False
    ) -> ChildProcess | Failed:
        try:
            process = await spawn(
                MODULE,
                self._name,
                threads=self._serving.threads,
                sockets={"listen": listener},
                zygote=self._zygote,
                groups=self._groups,
                memory_bytes=self._memory_bytes,
            )
        except OSError as error:
            return Failed(Reason.INTERNAL, f"{self._name}: {error.strerror}")
        try:
            job = job_for(
                self.spec,
                threads=self._serving.threads,
                accelerators=self._accelerators,
                data_bytes=self._memory_bytes,
                serving=self._serving,
            )
            process.send(render_job(job))
            async with asyncio.timeout(self._ready_s):
                message = await self._first_word(process, yields=yields)
            if message is None:
                words = process.last_words(await process.wait())
                return Failed(Reason.TRIAL_CRASHED, f"it died while loading, {words}")
        except TimeoutError:
            await process.put_down()
            return Failed(Reason.TRIAL_TIMEOUT, f"it was not ready within {self._ready_s:g} s")
        except BaseException:
            await process.put_down()
            raise
        if "failed" in message:
            await process.end()
            return Failed(Reason(message["failed"]), message["detail"])
        self._took(message["accelerator"], tuple(message["passed_over"]))
        if self.drift is None and (told := message["reference"]) is not None:
            self.drift = DriftWatch(codec.decode(Reference, told, what="reference"))
        _log.info(
            "%s: ready in %.0f ms on %s (pid %d)",
            self._name,
            message["load_ms"],
            self.accelerator,
            process.pid,
        )
        return process

    async def _first_word(self, process: ChildProcess, *, yields: bool) -> dict[str, Any] | None:
        """Half of its time at most, it yields: on a busy board it might never be ready."""
        if not yields:
            return await process.receive()
        with yielding(process.pid) as forward:
            late = asyncio.get_running_loop().call_later(self._ready_s / 2, forward)
            try:
                return await process.receive()
            finally:
                late.cancel()

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
