"""Measures candidates as this board would run them: one trial after the other, round by round.

The trial is the one that an install has: a process of its own at the lowest priority, with bounds
of time and memory. What crashes, hangs or takes too much is told as such, and the rest is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from edgefleet_agent.ports import Failed, ModelSpec, StoredFile, TrialReport
from edgefleet_agent.runtime.choice import engine_for
from edgefleet_contract.bundle import Digest
from edgefleet_contract.measuring import Candidate, Figures, MeasureJob, Result
from edgefleet_contract.reasons import Reason

Try = Callable[[ModelSpec, float], Awaitable[TrialReport | Failed]]
"""Tries a model within so many seconds."""


@dataclass(frozen=True, slots=True)
class Ability:
    """What this board runs models with."""

    engines: dict[str, str]
    hw: str
    preference: tuple[str, ...] = ()


async def measure(
    job: MeasureJob,
    folder: Path,
    ability: Ability,
    attempt: Try,
    *,
    within_s: float = float("inf"),
    tell: Callable[[Result], None] = lambda _: None,
) -> tuple[Result, ...]:
    """What each candidate costs in each round.

    Args:
        job: what to measure.
        folder: its files, by digest.
        ability: what to measure on.
        attempt: tries one.
        within_s: what is not begun after so many seconds is not measured, and said so.
        tell: told every result as it comes.
    """
    end = asyncio.get_running_loop().time() + within_s
    found: list[Result] = []
    for number in range(job.repeat):
        for one in job.candidates:
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                outcome: TrialReport | Failed = Failed(
                    Reason.TRIAL_TIMEOUT, "the time of the whole job was over"
                )
            else:
                outcome = await _try(one, folder, ability, attempt, min(job.timeout_s, left))
            found.append(_result(one, number, outcome, ability))
            tell(found[-1])
    return tuple(found)


async def _try(
    one: Candidate, folder: Path, ability: Ability, attempt: Try, timeout_s: float
) -> TrialReport | Failed:
    engine = _engine(one, ability)
    if isinstance(engine, Failed):
        return engine
    spec = ModelSpec(
        slot=one.name,
        model=one.name,
        version=1,
        bundle_sha256=Digest("0" * 64),  # it is of no bundle, and nothing serves it
        variant=one.variant,
        engine=engine,
        files={
            path: StoredFile(str(folder / digest), digest) for path, digest in one.files.items()
        },
        labels=one.labels,
    )
    return await attempt(spec, timeout_s)


def _engine(one: Candidate, ability: Ability) -> str | Failed:
    return engine_for(one.variant, ability.engines, ability.hw, ability.preference)


def _result(one: Candidate, number: int, outcome: TrialReport | Failed, ability: Ability) -> Result:
    if isinstance(outcome, Failed):
        return Result(one.name, number, reason=outcome.reason, detail=outcome.detail[:1000])
    engine = _engine(one, ability)
    return Result(
        one.name,
        number,
        Figures(
            engine=engine if isinstance(engine, str) else "",
            accelerator=outcome.accelerator,
            open_ms=outcome.open_ms,
            load_ms=outcome.load_ms,
            p50_us=outcome.p50_us,
            p95_us=outcome.p95_us,
            p99_us=outcome.p99_us,
            ram_mib=outcome.ram_mib,
            runs=outcome.runs,
            disturbed=outcome.disturbed,
            vectors=outcome.vectors,
            max_abs_err=outcome.max_abs_err,
            passed_over=outcome.passed_over,
        ),
    )


def least_bound(*mib: int) -> int:
    """The tightest of some bounds; 0 is none."""
    return min((one for one in mib if one), default=0)
