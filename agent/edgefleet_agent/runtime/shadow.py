"""A candidate in shadow: a worker whose answers go nowhere, but are held against those served.

Run as `python -m edgefleet_agent.runtime.shadow`. It runs when nobody else wants the processor, is
the first that the kernel ends when memory is short, and asks for a rest after each copy, so that
its share of a core is kept. What it says to the agent are counts; requests end here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.comparison import Comparison, Tally, compare
from edgefleet_agent.runtime.engine import Session
from edgefleet_agent.runtime.frames import Ask, Frame, unpack_copy
from edgefleet_agent.runtime.loading import Job, parse_job
from edgefleet_agent.runtime.slots import Bytes
from edgefleet_agent.runtime.speech import SPEECHES
from edgefleet_agent.runtime.worker import Worker, prepare
from edgefleet_contract import codec

_TELL_S: Final = 0.1


class ShadowWorker(Worker):
    """Answers copies, compares, and says how long it will rest, µs.

    Args:
        session: the candidate.
        job: what it is.
        control: where the counts go.
        max_cpu_share: of one core.
    """

    def __init__(
        self, session: Session, job: Job, control: child.Control, *, max_cpu_share: float
    ) -> None:
        super().__init__(session, job)
        self._control, self._max_cpu_share = control, max_cpu_share
        self._tally = Tally()
        self._cpu_at_ready = self._cpu_before = time.process_time()
        self._rested_at = time.perf_counter()
        self._told_at = 0.0

    def answer(self, frame: Frame) -> tuple[int, bytes]:
        """The rest that is wanted before the next copy."""
        copy = unpack_copy(frame.body)
        start = time.perf_counter()
        code, body = super().answer(Frame(frame.id, copy.ask, copy.body))
        took = round((time.perf_counter() - start) * 1e6)
        comparison = _compare(copy.ask, body, copy.answer) if code == 200 else None
        self._tally.count(comparison, serving_us=copy.microseconds, candidate_us=took)
        if time.perf_counter() - self._told_at > _TELL_S:
            self.tell()
        return 200, b"%d" % round(self._rest() * 1e6)

    def tell(self) -> None:
        """Send the agent what was counted so far."""
        self._told_at = time.perf_counter()
        report = self._tally.report(time.process_time() - self._cpu_at_ready)
        self._control.send(report=codec.encode(report))

    def _rest(self) -> float:
        """Seconds, counted from the end of the last rest, that what was used since is worth."""
        now, cpu = time.perf_counter(), time.process_time()
        rest = max(0.0, (cpu - self._cpu_before) / self._max_cpu_share - (now - self._rested_at))
        self._cpu_before, self._rested_at = cpu, now + rest
        return rest


def _compare(ask: Ask, found: Bytes, served: Bytes) -> Comparison:
    read = SPEECHES[ask].read_answer
    return compare(read(found), read(served))


def _step_back() -> None:
    """Only when nobody else wants to run, and first to go when memory is short; where allowed."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(argv: list[str]) -> None:
    """Load, say so, compare until the agent speaks again, and give the final counts."""
    fds = child.arguments(argv)
    control = child.Control(fds["control"])
    os.nice(19)
    message = control.receive()
    job = parse_job(message["job"])
    loaded = prepare(job)
    if isinstance(loaded, Failed):
        control.send(failed=loaded.reason, detail=loaded.detail)
        return
    gc.collect()
    gc.freeze()
    _step_back()
    worker = ShadowWorker(loaded.session, job, control, max_cpu_share=message["max_cpu_share"])
    control.send(ready=True)
    worker.serve(control.socket, socket.socket(fileno=fds["listen"]))
    worker.tell()
    control.send(ended=True)


if __name__ == "__main__":
    main(sys.argv)
