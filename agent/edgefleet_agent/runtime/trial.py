"""The trial of a model, in a process of its own: load, warm up, golden outputs, limits.

Run as `python -m edgefleet_agent.runtime.trial`. A crash, an out-of-memory kill or a hang costs
this process and nothing else; `trial_runner` is the parent's half.

The trial is the politest process of the board (nice 19), so others run while it measures. An
inference that the kernel interrupted for somebody else says little about the model: it is measured
again, within reason.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet_agent.ports import Failed, TrialReport
from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Session
from edgefleet_agent.runtime.engines import preload
from edgefleet_agent.runtime.golden import Call, Golden, read_golden
from edgefleet_agent.runtime.loading import Job, golden_source, parse_job, read_variant
from edgefleet_agent.runtime.opening import load
from edgefleet_contract import codec
from edgefleet_contract.bundle import Limits
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason

MIN_RUNS: Final = 20
_WARM_UP: Final = 3
_PATIENCE: Final = 3
_MIB: Final = 1024 * 1024


def judge(report: TrialReport, limits: Limits) -> Failed | None:
    """Whether what was measured keeps within the signed limits; 0 is not limited. Pure."""
    for reason, what, found, limit, unit in (
        (Reason.MEMORY_EXCEEDED, "peak memory", report.ram_mib, limits.ram_mib, "MiB"),
        (Reason.LATENCY_EXCEEDED, "load to first answer", report.load_ms, limits.load_ms, "ms"),
        (Reason.LATENCY_EXCEEDED, "p95 of one inference", report.p95_us, limits.p95_us, "µs"),
    ):
        if limit and found > limit:
            return Failed(reason, f"{what} {found:.1f} {unit}, limit {limit} {unit}")
    return None


def run_trial(job: Job) -> TrialReport | Failed:
    """What the trial measured, or the first thing that was not as it must be."""
    try:
        preload(job.engine)
        child.confine(cpu_s=job.cpu_s, data_bytes=job.data_bytes)
        return _measure(job, read_golden(golden_source(job), job.variant))
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    except (PeerError, DeviceError) as error:
        return Failed(error.reason, error.message)
    except CannotRun as error:
        return Failed(Reason.GOLDEN_MISMATCH, f"an inference failed: {error}")
    except MemoryError:
        return Failed(
            Reason.MEMORY_EXCEEDED, f"ran out of the {job.data_bytes // _MIB} MiB that a trial has"
        )


def _measure(job: Job, golden: Golden) -> TrialReport | Failed:
    gc.collect()
    empty, mapped = _resident("VmRSS"), _resident("RssFile")
    loaded = load(job, read_variant(job), golden, on_trial=True)
    if isinstance(loaded, Failed):
        return loaded
    timing = _times(loaded.session, golden.first, job)
    times = timing.counted
    report = TrialReport(
        vectors=golden.vectors,
        max_abs_err=loaded.max_abs_err,
        load_ms=loaded.load_ms,
        p50_us=times[len(times) // 2],
        p95_us=times[min(len(times) - 1, int(len(times) * 0.95))],
        p99_us=times[min(len(times) - 1, int(len(times) * 0.99))],
        runs=len(times),
        disturbed=timing.left_out,
        open_ms=loaded.open_ms,
        # What it mapped of the runtime's files meanwhile is no memory of the model: it is shared,
        # and how much was there before depends on whether the process is a fork.
        ram_mib=max(0, _resident("VmHWM") - empty - (_resident("RssFile") - mapped)) / _MIB,
        accelerator=loaded.accelerator,
        passed_over=loaded.passed_over,
    )
    return judge(report, job.limits) or report


@dataclass(frozen=True, slots=True)
class _Timing:
    """Microseconds of single inferences that count, sorted, and how many do not."""

    counted: list[float]
    left_out: int


def _times(session: Session, call: Call, job: Job) -> _Timing:
    """Single inferences: at least 20, more while they are quick.

    Interrupted ones are left out, unless they are most of what there is.
    """
    for _ in range(_WARM_UP):
        session.run(call.feeds)
    quiet: list[float] = []
    disturbed: list[float] = []
    end = time.perf_counter() + job.run_s
    while len(quiet) + len(disturbed) < job.runs and (
        time.perf_counter() < end
        or (len(quiet) < MIN_RUNS and len(disturbed) < MIN_RUNS * _PATIENCE)
    ):
        before, start = _interruptions(), time.perf_counter()
        session.run(call.feeds)
        took = (time.perf_counter() - start) * 1e6
        (quiet if _interruptions() == before else disturbed).append(took)
    if len(quiet) >= min(MIN_RUNS, job.runs):
        return _Timing(sorted(quiet), len(disturbed))
    return _Timing(sorted(quiet + disturbed), 0)


def _interruptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _resident(field: str) -> int:
    """VmRSS, VmHWM or RssFile of this process, bytes. Not ru_maxrss: that one survives exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def main(argv: list[str]) -> None:
    """Read the job, run it, send the outcome."""
    control = child.Control(child.arguments(argv)["control"])
    os.nice(19)
    child.offer(child.TRIAL_ADJ)
    outcome = run_trial(parse_job(control.receive()))
    if isinstance(outcome, Failed):
        control.send(failed=outcome.reason, detail=outcome.detail)
    else:
        control.send(report=codec.encode(outcome))


if __name__ == "__main__":
    main(sys.argv)
