"""The agent's hold on a candidate in shadow: started, watched, ended; never restarted.

A candidate that does not answer hangs, unless the board is so busy that the kernel does not let it
run: that is no fault of the model, and ends with whatever could be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import psutil

from edgefleet_agent.ports import Failed, ModelSpec, ShadowReport
from edgefleet_agent.runtime.cgroups import Cgroups
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.loading import job_for, render_job
from edgefleet_agent.runtime.process import ChildProcess, Forker, spawn, watched
from edgefleet_agent.runtime.trial_runner import data_bytes
from edgefleet_agent.runtime.worker_process import listen_at
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_contract import codec
from edgefleet_contract.reasons import Reason

_log = logging.getLogger(__name__)

T = TypeVar("T")

MODULE: Final = "edgefleet_agent.runtime.shadow"
_LOOK_S: Final = 0.3


class ShadowProcess:
    """`async with ShadowProcess(…) as shadow`: no process and no socket are left behind.

    Args:
        id: unique in the agent's life.
        spec: the candidate.
        config: how long it may load and answer; its threads and memory.
        folder: of our own, for its socket.
        accelerators: what it may run on.
        zygote: forks it where that works.
        groups: where it gets a control group of its own.
    """

    def __init__(
        self,
        id: str,  # noqa: A002  # what it is
        spec: ModelSpec,
        *,
        config: ServingConfig,
        folder: Path,
        accelerators: Accelerators,
        zygote: Forker | None = None,
        groups: Cgroups | None = None,
    ) -> None:
        self.id, self.path = id, folder / f"{id}.sock"
        self._name = f"shadow {spec.slot} {spec.model}@{spec.version}"
        self._spec, self._config, self._zygote, self._groups = spec, config, zygote, groups
        self._accelerators = accelerators
        self._listener: socket.socket | None = None
        self._process: ChildProcess | None = None
        self._judging: asyncio.Task[None] | None = None
        self._hung = False
        self._last = ShadowReport()

    @property
    def pid(self) -> int | None:
        """Of its process; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    async def __aenter__(self) -> ShadowProcess:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._judging is not None:
            self._judging.cancel()
        process, self._process = self._process, None
        if process is not None:
            await process.put_down()
        if self._listener is not None:
            self._listener.close()
            self.path.unlink(missing_ok=True)

    async def start(self, *, max_cpu_share: float) -> ShadowReport | Failed | None:
        """None once it is loaded; a report of nothing where the board has no time to load it."""
        limit = data_bytes(self._config.trial_data_mib)
        try:
            self._listener = listen_at(self.path)
            self._process = process = await spawn(
                MODULE,
                self._name,
                threads=self._config.model(self._spec.slot).threads,
                sockets={"listen": self._listener},
                zygote=self._zygote,
                groups=self._groups,
                memory_bytes=limit,
            )
        except OSError as error:
            return Failed(Reason.INTERNAL, f"{self._name} could not be started: {error.strerror}")
        job = job_for(
            self._spec,
            threads=self._config.model(self._spec.slot).threads,
            accelerators=self._accelerators,
            data_bytes=limit,
        )
        process.send({"job": render_job(job), "max_cpu_share": max_cpu_share})
        message = await self._within(self._config.ready_s, process.receive())
        if isinstance(message, Failed):
            return await self._unless_starved(process, message)
        if message is None:
            return await self._crashed(process)
        if "failed" in message:
            return Failed(Reason(message["failed"]), message["detail"])
        return None

    async def watch(self, seconds: float) -> ShadowReport | Failed:
        """What it counted in this time, or how it ended before."""
        assert self._process is not None, "it is not started"
        process = self._process
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._listen(process)
        process.send({"end": True})
        outcome = await self._within(self._config.deadline_s, self._listen(process))
        if isinstance(outcome, Failed) and outcome.reason is Reason.TRIAL_TIMEOUT:
            return await self._unless_starved(process, outcome)
        return outcome

    def overran(self, pid: int) -> None:
        """The front says that it did not answer within the deadline: end it if it hangs."""
        process = self._process
        if process is not None and process.pid == pid:
            judging = self._judge(process, self._last)
            self._judging = watched(asyncio.create_task(judging, name=f"judge of {self._name}"))

    async def _judge(self, process: ChildProcess, last: ShadowReport) -> None:
        """Wait while it is kept from the processor; it has until a deadline's worth is used up."""
        used = _cpu_s(process.pid)
        while await is_starved(process.pid):
            if _cpu_s(process.pid) - used > self._config.deadline_s:
                break
        if self._last is last:  # else it has answered meanwhile
            self._hung = True
            process.kill()

    async def _listen(self, process: ChildProcess) -> ShadowReport | Failed:
        """Take its counts until it ends, in order or not."""
        while (message := await process.receive()) is not None:
            if "ended" in message:
                return self._last
            self._last = codec.decode(ShadowReport, message["report"], what=self._name)
        if self._hung:
            return self._late(self._config.deadline_s)
        return await self._crashed(process)

    async def _within(self, seconds: float, work: Awaitable[T]) -> T | Failed:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            return self._late(seconds)

    def _late(self, seconds: float) -> Failed:
        return Failed(Reason.TRIAL_TIMEOUT, f"{self._name} did not answer within {seconds:g} s")

    async def _crashed(self, process: ChildProcess) -> Failed:
        words = process.last_words(await process.wait())
        return Failed(Reason.TRIAL_CRASHED, f"{self._name} died, {words}")

    async def _unless_starved(self, process: ChildProcess, failed: Failed) -> ShadowReport | Failed:
        if not await is_starved(process.pid):
            return failed
        _log.warning("%s: the board has no time for it", self._name)
        return self._last


async def is_starved(pid: int) -> bool:
    """Whether a process wants to run and gets less than half a core, for a moment's look."""
    before = _cpu_s(pid)
    await asyncio.sleep(_LOOK_S)
    return _wants_to_run(pid) and _cpu_s(pid) - before < _LOOK_S / 2


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        used = psutil.Process(pid).cpu_times()
        return float(used.user + used.system)
    return 0.0


def _wants_to_run(pid: int) -> bool:
    """Whether a thread of it stands in line for a processor or for the disk."""
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            if file.read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    return False
