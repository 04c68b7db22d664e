"""One version of one model, serving: a process that the front sends requests to.

Run as `python -m edgefleet_agent.runtime.worker`. One thread, one request at a time, or
those that came together: a session is not shared, and whatever a hostile body or a native crash
does, it does to this process alone.
Bodies are decoded here, never in the front.
"""

from __future__ import annotations

import gc
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.answering import Answered, Answerer
from edgefleet_agent.runtime.batching import why_not_joined
from edgefleet_agent.runtime.caller import greet
from edgefleet_agent.runtime.engine import CannotLoad, CannotRun
from edgefleet_agent.runtime.engines import preload
from edgefleet_agent.runtime.frames import BrokenFrame, Frame
from edgefleet_agent.runtime.golden import Golden, read_golden
from edgefleet_agent.runtime.inbox import Inbox
from edgefleet_agent.runtime.loading import (
    Job,
    golden_source,
    parse_job,
    read_file,
    read_labels,
    read_variant,
)
from edgefleet_agent.runtime.opening import Loaded, load
from edgefleet_agent.runtime.tally import Tally, misfit
from edgefleet_contract import codec
from edgefleet_contract.drift import Window
from edgefleet_contract.drift_reference import Reference, parse_reference
from edgefleet_contract.errors import DeviceError, Malformed, PeerError
from edgefleet_contract.reasons import Reason

_TOLD_S: Final = 1.0


class Worker:
    """Answers frames on a listening Unix socket until the parent hangs up.

    Args:
        answerer: answers them.
        limit: how many are answered together; 1: one at a time.
        delay_s: how long to wait for more at most.
        tell: sends the parent what was counted of requests, about once a second while some come.
    """

    def __init__(
        self,
        answerer: Answerer,
        *,
        limit: int = 1,
        delay_s: float = 0.0,
        tell: Callable[[Window], None] = lambda _window: None,
    ) -> None:
        self.answerer, self._limit, self._delay_s = answerer, limit, delay_s
        self._tell, self._told_at = tell, 0.0

    def serve(self, control: socket.socket, listener: socket.socket) -> None:
        """Accept and answer. Returns when `control` closes."""
        inboxes: dict[socket.socket, Inbox] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            selector.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._report()):
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is control:
                        return
                    if ready is listener:
                        caller = greet(listener)
                        if caller is not None:
                            inboxes[caller.socket] = Inbox(
                                caller, limit=self._limit, delay_s=self._delay_s
                            )
                            selector.register(caller.socket, selectors.EVENT_READ)
                    elif not self._attend(inboxes[ready]):
                        selector.unregister(ready)
                        del inboxes[ready]
                        ready.close()

    def _attend(self, inbox: Inbox) -> bool:
        """Read once and answer what is complete; False when the front has gone."""
        try:
            frames = inbox.take()
            for start in range(0, len(frames or ()), self._limit):
                for ready in self.answer((frames or [])[start : start + self._limit]):
                    inbox.caller.send(ready)
                if self.answerer.tally is not None:
                    self.answerer.tally.settle()
        except (ConnectionError, BrokenFrame):
            return False
        return frames is not None

    def _report(self) -> float | None:
        """Tell what was counted, if it is time: how long to wait at most until it is; None: there
        is nothing to tell."""
        tally = self.answerer.tally
        if tally is None or not tally.has_news:
            return None
        now = time.monotonic()
        if (left := self._told_at + _TOLD_S - now) > 0:
            return left
        self._told_at = now
        if (window := tally.take()) is not None:
            self._tell(window)
        return None

    def answer(self, frames: Sequence[Frame]) -> Iterable[list[Answered]]:
        """The answers to requests that may be run together, in their order, as they are ready."""
        if len(frames) > 1:
            return self.answerer.answer_together(frames)
        return [[(frame, self.answerer.answer(frame))] for frame in frames]


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that is warm. `limit`: see `Worker`; `reference`: what its drift is held against."""

    model: Loaded
    limit: int
    reference: Reference | None


def prepare(job: Job) -> Ready | Failed:
    """The model of a job, ready to answer: it has answered at least the first golden vector."""
    try:
        preload(job.engine)
        child.confine(data_bytes=job.data_bytes)
        read_labels(job)  # what cannot be read is found out now, not when it serves
        golden = read_golden(golden_source(job), job.variant)
        loaded = load(job, read_variant(job), golden, on_trial=False)
        if isinstance(loaded, Failed):
            return loaded
        return Ready(loaded, _limit(job, golden), _reference(job))
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    except (PeerError, DeviceError) as error:
        return Failed(error.reason, error.message)
    except (CannotRun, MemoryError) as error:
        return Failed(Reason.LOAD_FAILED, f"warm-up: {error}")


def _limit(job: Job, golden: Golden) -> int:
    """How many requests may be run together: what was configured, if the model allows it."""
    if job.serving.max_batch == 1:
        return 1
    reason = why_not_joined(job.variant, golden)
    if reason:
        sys.stderr.write(f"requests are not run together: {reason}\n")
    return 1 if reason else job.serving.max_batch


def _reference(job: Job) -> Reference | None:
    """What drift is held against, where it is watched; one that cannot be read is passed over, as
    watching is not serving."""
    path = job.variant.drift
    if path is None or not job.serving.drift:
        return None
    try:
        reference = parse_reference(read_file(job, path), what=path)
        wrong = misfit(reference, job.variant)
    except Malformed as error:
        wrong = error.message
    if wrong:
        sys.stderr.write(f"drift is not watched: {wrong}\n")
    return None if wrong else reference


def main(argv: list[str]) -> None:
    """Load, say so, serve."""
    fds = child.arguments(argv)
    control = child.Control(fds["control"])
    child.offer(child.WORKER_ADJ)
    job = parse_job(control.receive())
    start = time.perf_counter()
    ready = prepare(job)
    if isinstance(ready, Failed):
        control.send(failed=ready.reason, detail=ready.detail)
        return
    tally = None
    if (reference := ready.reference) is not None and job.variant.drift is not None:
        tally = Tally(reference, job.files[job.variant.drift].sha256, read_labels(job))
    answerer = Answerer(ready.model.session, job, tally)
    gc.collect()
    gc.freeze()
    control.send(
        ready=True,
        load_ms=(time.perf_counter() - start) * 1e3,
        accelerator=ready.model.accelerator,
        passed_over=ready.model.passed_over,
        reference=None if reference is None else codec.encode(reference),
    )
    worker = Worker(
        answerer,
        limit=ready.limit,
        delay_s=job.serving.max_delay_ms / 1e3,
        tell=lambda window: control.send(drift=codec.encode(window)),
    )
    worker.serve(control.socket, socket.socket(fileno=fds["listen"]))


if __name__ == "__main__":
    main(sys.argv)
