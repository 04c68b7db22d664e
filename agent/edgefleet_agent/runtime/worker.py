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
from dataclasses import dataclass
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
    parse_job,
    read_labels,
    read_variant,
)
from edgefleet_agent.runtime.opening import Loaded, load
from edgefleet_agent.runtime.slots import Slots, fits
from edgefleet_agent.runtime.speech import SPEECHES
from edgefleet_agent.serving.bodies import BadBody, BadOutput, Served, error, join_results
from edgefleet_contract.errors import DeviceError, PeerError
from edgefleet_contract.reasons import Reason

_PIECE: Final = 256 * 1024
_JOINED: Final = 64 * 1024
_HELLO_S: Final = 2.0


class Worker:
    """Answers frames on a listening Unix socket until the parent hangs up."""

    def __init__(self, session: Session, job: Job) -> None:
        self._session = session
        self._served = Served(
            job.slot, job.version, job.variant.inputs, job.variant.outputs, read_labels(job)
        )

    def serve(self, control: socket.socket, listener: socket.socket) -> None:
        """Accept and answer. Returns when `control` closes."""
        callers: dict[socket.socket, _Caller] = {}
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
                            callers[connection.socket] = connection
                            selector.register(connection.socket, selectors.EVENT_READ)
                    elif not self._attend(callers[ready]):
                        selector.unregister(ready)
                        del callers[ready]
                        ready.close()

    def _greet(self, listener: socket.socket) -> _Caller | None:
        """A new connection; None where the front died as soon as it had connected."""
        connection, _ = listener.accept()
        pid = str(os.getpid()).encode()
        try:
            slots = _slots_of(connection)
            connection.sendall(header(GREETING, 200, len(pid)) + pid)
        except OSError:
            connection.close()
            return None
        return _Caller(connection, slots, FrameReader(slots.view))

    def _attend(self, caller: _Caller) -> bool:
        """Read once and answer what is complete; False when the front has gone."""
        try:
            data = caller.socket.recv(_PIECE)
            if not data:
                return False
            for frame in caller.reader.feed(data):
                code, body = self.answer(frame)
                caller.send(frame, code, body)
        except (ConnectionError, BrokenFrame):
            return False
        return True

    def answer(self, frame: Frame) -> tuple[int, bytes]:
        """An HTTP status and a body for one request."""
        speech = SPEECHES.get(frame.code)
        if speech is None:
            return 500, error(f"the worker does not know request {frame.code}")
        try:
            question = speech.read(frame.body, self._served)
            results = [self._session.run(feeds) for feeds in question.calls]
            return 200, question.tell(join_results(results, self._served.outputs))
        except BadBody as refusal:
            return 400, error(str(refusal))
        except CannotRun as failure:
            return (400 if failure.input_is_to_blame else 500), error(str(failure))
        except BadOutput as failure:
            return 500, error(str(failure))
        except (MemoryError, RecursionError) as failure:
            return 500, error(f"{type(failure).__name__} while answering")


@dataclass(slots=True)
class _Caller:
    """The front, at the other end of a connection."""

    socket: socket.socket
    slots: Slots
    reader: FrameReader

    def send(self, asked: Frame, code: int, body: bytes) -> None:
        """The answer to a request: in its slot, if it has one and that is worth it."""
        if asked.slot and fits(body):
            self.slots.put(asked.slot, body)
            self.socket.sendall(header(asked.id, code, len(body), asked.slot))
            return
        head = header(asked.id, code, len(body))
        if len(body) <= _JOINED:
            self.socket.sendall(head + body)
        else:
            self.socket.sendall(head)
            self.socket.sendall(body)


def _slots_of(connection: socket.socket) -> Slots:
    """The shared memory that the front sends first.

    Raises:
        OSError: it does not, or something else.
    """
    connection.settimeout(_HELLO_S)
    _, fds, _, _ = socket.recv_fds(connection, 1, 1)
    connection.settimeout(None)
    if not fds:
        raise ConnectionError("no shared memory was sent")
    try:
        return Slots(fds[0])
    finally:
        os.close(fds[0])


def prepare(job: Job) -> Loaded | Failed:
    """The model, warm: it has answered at least the first golden vector."""
    try:
        preload(job.engine)
        child.confine(data_bytes=job.data_bytes)
        read_labels(job)  # what cannot be read is found out now, not when it serves
        golden = read_golden(golden_source(job), job.variant)
        return load(job, read_variant(job), golden, on_trial=False)
    except CannotLoad as error:
        return Failed(Reason.LOAD_FAILED, str(error))
    except (PeerError, DeviceError) as error:
        return Failed(error.reason, error.message)
    except MemoryError as error:
        return Failed(Reason.LOAD_FAILED, f"warm-up: {error}")


def main(argv: list[str]) -> None:
    """Load, say so, serve."""
    fds = child.arguments(argv)
    control = child.Control(fds["control"])
    job = parse_job(control.receive())
    start = time.perf_counter()
    loaded = prepare(job)
    if isinstance(loaded, Failed):
        control.send(failed=loaded.reason, detail=loaded.detail)
        return
    gc.collect()
    gc.freeze()
    control.send(
        ready=True,
        load_ms=(time.perf_counter() - start) * 1e3,
        accelerator=loaded.accelerator,
        passed_over=loaded.passed_over,
    )
    Worker(loaded.session, job).serve(control.socket, socket.socket(fileno=fds["listen"]))


if __name__ == "__main__":
    main(sys.argv)
