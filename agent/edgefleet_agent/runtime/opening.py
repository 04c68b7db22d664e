"""Opens a verified variant in a child process: sessions, declared tensors, golden outputs.

Trial and worker load in the same way, so what passed the trial is what serves.

A model is tried on one accelerator after the other. What is missing, does not take the model or
answers its golden vectors wrongly is passed over, with a line that says why. A worker holds the
model against all vectors again unless this accelerator has passed them since the agent began: what
is plugged in can change between trial and reboot.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime.chain import AcceleratorSetup
from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Session, difference
from edgefleet_agent.runtime.engines import open_session
from edgefleet_agent.runtime.golden import Golden, check
from edgefleet_agent.runtime.loading import Job, map_weights
from edgefleet_contract.reasons import Reason

_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is warm. `accelerator` is what it runs on, `passed_over` says why not on what
    comes before that in the chain; `load_ms` from its bytes to the first answer, `open_ms` to the
    session; `max_abs_err` over the golden vectors, where they were checked.
    """

    session: Session
    accelerator: str
    passed_over: tuple[str, ...]
    load_ms: float
    max_abs_err: float
    open_ms: float = 0.0


def load(job: Job, files: dict[str, bytes], golden: Golden, *, on_trial: bool) -> Loaded | Failed:
    """The variant made of these files, on the first accelerator that takes it and answers rightly.

    Args:
        job: what to load.
        files: by path, in the clear; let go as they are opened.
        golden: the vectors; the first is answered in any case.
        on_trial: every vector is checked, on whatever it runs.

    Returns:
        What was loaded; LOAD_FAILED or GOLDEN_MISMATCH with what was found on the
        last of the chain, and before.

    Raises:
        MemoryError: on the last of the chain.
    """
    passed_over: tuple[str, ...] = ()
    *before, last = job.accelerators.chain(job.engine)
    for name in before:
        try:
            outcome = _load_on(name, job, dict(files), golden, on_trial)
        except MemoryError:
            outcome = Failed(Reason.MEMORY_EXCEEDED, "ran out of memory")
        if isinstance(outcome, Loaded):
            return replace(outcome, passed_over=passed_over)
        passed_over += (f"{name}: {_plain(outcome.detail)}",)
    outcome = _load_on(last, job, files, golden, on_trial)
    if isinstance(outcome, Loaded):
        return replace(outcome, passed_over=passed_over)
    if passed_over:
        return Failed(outcome.reason, "; ".join((f"{last}: {outcome.detail}", *passed_over)))
    return outcome


def _plain(text: str) -> str:
    """Of a stranger's message, what a message of ours may hold [wire-3.6]."""
    return "".join(each if each.isprintable() else " " for each in text[:_LONGEST])


def _load_on(
    name: str, job: Job, files: dict[str, bytes], golden: Golden, on_trial: bool
) -> Loaded | Failed:
    start = time.perf_counter()
    try:
        session = _open(name, job, files)
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    open_ms = (time.perf_counter() - start) * 1e3
    try:
        session.run(golden.first.feeds)
        load_ms = (time.perf_counter() - start) * 1e3
        worst: float | Failed = 0.0
        if on_trial or not job.accelerators.is_proven(name):
            worst = check(session, golden, job.variant)
    except CannotRun as error:
        return Failed(Reason.GOLDEN_MISMATCH, f"an inference failed: {error}")
    if isinstance(worst, Failed):
        return worst
    return Loaded(session, name, (), load_ms, worst, open_ms)


def _open(name: str, job: Job, files: dict[str, bytes]) -> Session:
    """A session on an accelerator.

    Raises:
        CannotLoad: it does not take a model, a step is not known or not well set, or the tensors
            are not those that the variant declares.
    """
    open_model = partial(
        open_session,
        job.engine,
        threads=job.threads,
        accelerator=name,
        setup=job.accelerators.setup.get(name, AcceleratorSetup()),
        is_optimized=job.variant.optimized_for is not None,
    )
    if job.variant.program is not None and job.variant.program.nodes:
        from edgefleet_agent.runtime.program import ProgramSession

        return ProgramSession(job.variant, files, open_model)
    session = open_model(files.pop(job.variant.model), weights=map_weights(job))
    if wrong := difference(session, job.variant):
        raise CannotLoad(wrong)
    return session
