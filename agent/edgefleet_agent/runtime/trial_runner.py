"""The parent's half of a trial: starts it, waits so long and no longer, says how it ended."""

from __future__ import annotations

import asyncio
import math
import signal
from dataclasses import replace
from typing import Final

import psutil

from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.cgroups import Cgroups
from edgefleet_agent.runtime.chain import Accelerators
from edgefleet_agent.runtime.loading import job_for, render_job
from edgefleet_agent.runtime.process import ChildProcess, Forker, finish, spawn
from edgefleet_contract import codec
from edgefleet_contract.reasons import Reason

MODULE: Final = "edgefleet_agent.runtime.trial"
_MIB: Final = 1024 * 1024
_LEAST_DATA: Final = 256 * _MIB


async def try_model(
    spec: ModelSpec,
    *,
    timeout_s: float,
    threads: int,
    data_mib: int,
    accelerators: Accelerators | None = None,
    zygote: Forker | None = None,
    groups: Cgroups | None = None,
    timing: tuple[int, float] | None = None,
) -> TrialReport | Failed:
    """The outcome of a trial of `spec` in a process of its own, which is gone afterwards.

    Args:
        spec: what to try.
        timeout_s: wall time of the whole trial.
        threads: of one inference.
        data_mib: private memory that the trial may have; 0 is three quarters of the board's.
        accelerators: what it may run on; None: the runtime as it comes.
        zygote: forks it where that works.
        groups: where it gets a control group of its own.
        timing: how many inferences are timed at most, and for how many seconds; None: as a trial.
    """
    name = f"trial {spec.model}@{spec.version}"
    cpu_s, limit = math.ceil(timeout_s * threads) + 1, data_bytes(data_mib)
    job = job_for(spec, threads=threads, accelerators=accelerators, cpu_s=cpu_s, data_bytes=limit)
    if timing is not None:
        job = replace(job, runs=timing[0], run_s=timing[1])
    try:
        process = await spawn(
            MODULE, name, threads=threads, zygote=zygote, groups=groups, memory_bytes=limit
        )
    except OSError as error:
        return Failed(Reason.INTERNAL, f"{name} could not be started: {error.strerror}")
    try:
        process.send(render_job(job))
        async with asyncio.timeout(timeout_s):
            message = await process.receive()
    except TimeoutError:
        return Failed(Reason.TRIAL_TIMEOUT, f"{name} did not end within {timeout_s:g} s")
    else:
        if message is None:
            return _crashed(process, await process.wait())
    finally:
        process.kill()
        await finish(process.wait())
    if "report" in message:
        return codec.decode(TrialReport, message["report"], what=name)
    return Failed(Reason(message["failed"]), message["detail"])


def data_bytes(mib: int) -> int:
    """Private memory that an untried model may have; 0 MiB asks for three quarters of the board."""
    return mib * _MIB or max(_LEAST_DATA, psutil.virtual_memory().total * 3 // 4)


def _crashed(process: ChildProcess, code: int) -> Failed:
    words = process.last_words(code)
    if code == -signal.SIGXCPU:
        return Failed(Reason.TRIAL_TIMEOUT, f"out of processor time, {words}")
    return Failed(Reason.TRIAL_CRASHED, words)
