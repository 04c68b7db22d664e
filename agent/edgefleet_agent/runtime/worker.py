"""One version of one model, serving: a process that the front sends requests to.

Run as `python -m edgefleet_agent.runtime.worker`. One thread, one request at a time, or
those that came together: a session is not shared, and whatever a hostile body or a native crash
does, it does to this process alone.
Bodies are decoded here, never in the front.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.answering import Answered, Answerer
from edgefleet_agent.runtime.batching import why_not_joined
from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Session
from edgefleet_agent.runtime.engines import preload
from edgefleet_agent.runtime.frames import GREETING, BrokenFrame, Frame, header
from edgefleet_agent.runtime.golden import Golden, read_golden
from edgefleet_agent.runtime.inbox import Inbox
from edgefleet_agent.runtime.loading import (
    Job,
    golden_source,
    load,
    parse_job,
    read_labels,
    read_model,
)
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason

_JOINED: Final = 64 * 1024


class Worker:
    """Answers frames on a listening Unix socket until the parent hangs up.

    Args:
        answerer: answers them.
        limit: how many are answered together; 1: one at a time.
        delay_s: how long to wait for more at most.
    """

    def __init__(self, answerer: Answerer, *, limit: int = 1, delay_s: float = 0.0) -> None:
        self.answerer, self._limit, self._delay_s = answerer, limit, delay_s

    def serve(self, control: socket.socket, listener: socket.socket) -> None:
        """Accept and answer. Returns when `control` closes."""
        inboxes: dict[socket.socket, Inbox] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(control, selectors.EVENT_READ)
            selector.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    ready = key.fileobj
                    assert isinstance(ready, socket.socket)
                    if ready is control:
                        return
                    if ready is listener:
                        connection = self._greet(listener)
                        if connection is not None:
                            inboxes[connection] = Inbox(
                                connection, limit=self._limit, delay_s=self._delay_s
                            )
                            selector.register(connection, selectors.EVENT_READ)
                    elif not self._attend(ready, inboxes[ready]):
                        selector.unregister(ready)
                        del inboxes[ready]
                        ready.close()

    def _greet(self, listener: socket.socket) -> socket.socket | None:
        """A new connection; None where the front died as soon as it had connected."""
        connection, _ = listener.accept()
        pid = str(os.getpid()).encode()
        try:
            connection.sendall(header(GREETING, 200, len(pid)) + pid)
        except ConnectionError:
            connection.close()
            return None
        return connection

    def _attend(self, connection: socket.socket, inbox: Inbox) -> bool:
        """Read once and answer what is complete; False when the front has gone."""
        try:
            frames = inbox.take()
            for start in range(0, len(frames or ()), self._limit):
                for ready in self.answer((frames or [])[start : start + self._limit]):
                    _send(connection, ready)
        except (ConnectionError, BrokenFrame):
            return False
        return frames is not None

    def answer(self, frames: Sequence[Frame]) -> Iterable[list[Answered]]:
        """The answers to requests that may be run together, in their order, as they are ready."""
        if len(frames) > 1:
            return self.answerer.answer_together(frames)
        return [[(frame, self.answerer.answer(frame))] for frame in frames]


def _send(connection: socket.socket, answers: list[Answered]) -> None:
    """Small ones in one piece, so that the front wakes up once for them."""
    pieces: list[bytes] = []
    for frame, said in answers:
        pieces.append(header(frame.id, said.code, len(said.body)))
        if len(said.body) <= _JOINED:
            pieces.append(said.body)
            continue
        connection.sendall(b"".join(pieces))
        connection.sendall(said.body)
        pieces.clear()
    if pieces:
        connection.sendall(b"".join(pieces))


@dataclass(frozen=True, slots=True)
class Ready:
    """A session that is warm: it has answered the first golden vector. `limit`: see `Worker`."""

    session: Session
    limit: int


def prepare(job: Job) -> Ready | Failed:
    """The model of a job, ready to answer."""
    try:
        preload(job.engine)
        child.confine(data_bytes=job.data_bytes)
        read_labels(job)  # what cannot be read is found out now, not when it serves
        golden = read_golden(golden_source(job), job.variant)
        raw = read_model(job)
        session = raw if isinstance(raw, Failed) else load(job, raw)
        if not isinstance(session, Failed):
            session.run(golden.first.feeds)
            return Ready(session, _limit(job, golden))
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    except (PeerError, DeviceError) as error:
        return Failed(error.reason, error.message)
    except (CannotRun, MemoryError) as error:
        return Failed(Reason.LOAD_FAILED, f"warm-up: {error}")
    return session


def _limit(job: Job, golden: Golden) -> int:
    """How many requests may be run together: what was configured, if the model allows it."""
    if job.serving.max_batch == 1:
        return 1
    reason = why_not_joined(job.variant, golden)
    if reason:
        sys.stderr.write(f"requests are not run together: {reason}\n")
    return 1 if reason else job.serving.max_batch


def main(argv: list[str]) -> None:
    """Load, say so, serve."""
    fds = child.arguments(argv)
    control = child.Control(fds["control"])
    job = parse_job(control.receive())
    start = time.perf_counter()
    ready = prepare(job)
    if isinstance(ready, Failed):
        control.send(failed=ready.reason, detail=ready.detail)
        return
    answerer = Answerer(ready.session, job)
    gc.collect()
    gc.freeze()
    control.send(ready=True, load_ms=(time.perf_counter() - start) * 1e3)
    worker = Worker(answerer, limit=ready.limit, delay_s=job.serving.max_delay_ms / 1e3)
    worker.serve(control.socket, socket.socket(fileno=fds["listen"]))


if __name__ == "__main__":
    main(sys.argv)
