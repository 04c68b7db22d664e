"""One version of one model, serving: a process that the front sends requests to.

Run as `python -m edgefleet_agent.runtime.worker`. One thread, one request at a time: a session is
not shared, and whatever a hostile body or a native crash does, it does to this process alone.
Bodies are decoded here, never in the front.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import sys
import time
from typing import Final

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.engine import CannotLoad, CannotRun, Session
from edgefleet_agent.runtime.engines import preload
from edgefleet_agent.runtime.frames import GREETING, BrokenFrame, Frame, FrameReader, header
from edgefleet_agent.runtime.golden import read_golden
from edgefleet_agent.runtime.loading import (
    Job,
    golden_source,
    load,
    parse_job,
    read_labels,
    read_model,
)
from edgefleet_agent.runtime.speech import SPEECHES
from edgefleet_agent.serving.bodies import BadBody, BadOutput, Served, error
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason

_PIECE: Final = 256 * 1024
_JOINED: Final = 64 * 1024


class Worker:
    """Answers frames on a listening Unix socket until the parent hangs up."""

    def __init__(self, session: Session, job: Job) -> None:
        self._session = session
        self._served = Served(
            job.slot, job.version, job.variant.inputs, job.variant.outputs, read_labels(job)
        )

    def serve(self, control: socket.socket, listener: socket.socket) -> None:
        """Accept and answer. Returns when `control` closes."""
        readers: dict[socket.socket, FrameReader] = {}
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
                            readers[connection] = FrameReader()
                            selector.register(connection, selectors.EVENT_READ)
                    elif not self._attend(ready, readers[ready]):
                        selector.unregister(ready)
                        del readers[ready]
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

    def _attend(self, connection: socket.socket, reader: FrameReader) -> bool:
        """Read once and answer what is complete; False when the front has gone."""
        try:
            data = connection.recv(_PIECE)
            if not data:
                return False
            for frame in reader.feed(data):
                code, body = self.answer(frame)
                _send(connection, frame.id, code, body)
        except (ConnectionError, BrokenFrame):
            return False
        return True

    def answer(self, frame: Frame) -> tuple[int, bytes]:
        """An HTTP status and a body for one request."""
        speech = SPEECHES.get(frame.code)
        if speech is None:
            return 500, error(f"the worker does not know request {frame.code}")
        try:
            return 200, speech.answer(frame.body, self._served, self._session.run)
        except BadBody as refusal:
            return 400, error(str(refusal))
        except CannotRun as failure:
            return (400 if failure.input_is_to_blame else 500), error(str(failure))
        except BadOutput as failure:
            return 500, error(str(failure))
        except (MemoryError, RecursionError) as failure:
            return 500, error(f"{type(failure).__name__} while answering")


def _send(connection: socket.socket, id_: int, code: int, body: bytes) -> None:
    head = header(id_, code, len(body))
    if len(body) <= _JOINED:
        connection.sendall(head + body)
    else:
        connection.sendall(head)
        connection.sendall(body)


def prepare(job: Job) -> Session | Failed:
    """A session that is warm: it has answered the first golden vector."""
    try:
        preload(job.engine)
        child.confine(data_bytes=job.data_bytes)
        read_labels(job)  # what cannot be read is found out now, not when it serves
        golden = read_golden(golden_source(job), job.variant)
        raw = read_model(job)
        session = raw if isinstance(raw, Failed) else load(job, raw)
        if not isinstance(session, Failed):
            session.run(golden.first.feeds)
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    except (PeerError, DeviceError) as error:
        return Failed(error.reason, error.message)
    except (CannotRun, MemoryError) as error:
        return Failed(Reason.LOAD_FAILED, f"warm-up: {error}")
    return session


def main(argv: list[str]) -> None:
    """Load, say so, serve."""
    fds = child.arguments(argv)
    control = child.Control(fds["control"])
    child.offer(child.WORKER_ADJ)
    job = parse_job(control.receive())
    start = time.perf_counter()
    session = prepare(job)
    if isinstance(session, Failed):
        control.send(failed=session.reason, detail=session.detail)
        return
    gc.collect()
    gc.freeze()
    control.send(ready=True, load_ms=(time.perf_counter() - start) * 1e3)
    Worker(session, job).serve(control.socket, socket.socket(fileno=fds["listen"]))


if __name__ == "__main__":
    main(sys.argv)
