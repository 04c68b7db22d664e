"""The parent's end of a child process: started, spoken to in JSON lines, ended, reaped.

What a child writes to stderr goes to our log at debug; the last lines are kept, because they are
what a person wants to see when it crashed.

There are two ways to make one, which the caller cannot tell apart: a fork of the zygote, or a
program of its own where that does not work. Either is a child of this process.

Plain `subprocess` and a pidfd, not asyncio's subprocesses: starting one of those is a wait, and
giving up in the middle of it loses the process (Python 3.11).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.cgroups import Cgroups, Leaf
from edgefleet_agent.runtime.yielding import hasten

_log = logging.getLogger(__name__)

_Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

T = TypeVar("T")

MAX_LINE: Final = 16 * 1024 * 1024
_TAIL: Final = 5
_GRACE_S: Final = 2.0


class Forker(Protocol):
    """Who makes a child of ours without starting a program."""

    async def settled(self) -> None:
        """See `ZygoteProcess.settled`."""
        ...

    async def fork(self, module: str, sockets: dict[str, socket.socket]) -> int | None:
        """See `ZygoteProcess.fork`."""
        ...


class _Fork:
    """A child that was forked for us, as `subprocess.Popen` shows one that it started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


class ChildProcess:
    """A running child. Made by `spawn`; `end` or `kill` and `wait` it."""

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes] | _Fork,
        control: _Stream,
        stderr: _Stream,
    ) -> None:
        self._name, self._process = name, process
        self._reader, self._writer = control
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._leaf: Leaf | None = None
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._reap)
        self._listening = asyncio.create_task(self._listen(*stderr), name=f"stderr of {name}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def enclose(self, groups: Cgroups, memory_bytes: int) -> None:
        """Give it a control group of its own, until it ends; before it is told what to do."""
        if self._process.returncode is None:
            self._leaf = groups.place(self.pid, self._name, memory_bytes=memory_bytes)

    def send(self, message: object) -> None:
        """One message; lost if the child is gone, which `receive` and `wait` tell."""
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the child has hung up, be it in the middle of one."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):  # killed while it wrote: half a message is none
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def kill(self) -> None:
        """SIGKILL."""
        if self._process.returncode is None:  # only we reap it
            self._process.kill()
            hasten(self.pid)

    async def wait(self) -> int:
        """Its exit code once it has ended (negative: the signal), reaped, with its pipes closed."""
        await self._ended.wait()
        # Tasks, which are not awaited themselves: one that waits here and is cancelled would cancel
        # what the others wait for.
        await asyncio.wait([asyncio.ensure_future(self._hang_up()), self._listening])
        assert self._process.returncode is not None
        return self._process.returncode

    async def end(self) -> int:
        """Hang up, which ends it; kill it if it does not go. The exit code.

        Where this is cancelled, it is killed at once, and reaped all the same.
        """
        self._writer.close()
        try:
            async with asyncio.timeout(_GRACE_S):
                return await self.wait()
        except TimeoutError:
            _log.warning("%s (pid %d) did not end by itself", self._name, self.pid)
            return await self.put_down()
        except asyncio.CancelledError:
            await self.put_down()
            raise

    async def put_down(self) -> int:
        """Kill it and reap it, also if cancelled meanwhile; the exit code."""
        self.kill()
        return await finish(self.wait())

    def last_words(self, code: int) -> str:
        """How it ended, and the last that it said."""
        how = f"exit code {code}"
        if code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        said = " | ".join(self._tail)
        return f"{how}: {said}" if said else how

    async def _hang_up(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _reap(self) -> None:
        if self._process.poll() is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            if self._leaf is not None:
                self._leaf.remove()
            self._ended.set()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than a line may be: what follows is another
                continue
            except ConnectionError:
                break
            if not line:
                break
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._tail.append(text[:300])
                _log.debug("%s: %s", self._name, text)
        writer.close()


def watched(task: asyncio.Task[None]) -> asyncio.Task[None]:
    """The task, whose death by an error of ours is not passed over in silence."""

    def ended(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            _log.critical("%s failed", done.get_name(), exc_info=error)

    task.add_done_callback(ended)
    return task


async def spawn(
    module: str,
    name: str,
    *,
    threads: int,
    sockets: dict[str, socket.socket] | None = None,
    zygote: Forker | None = None,
    max_line: int = MAX_LINE,
    groups: Cgroups | None = None,
    memory_bytes: int = 0,
) -> ChildProcess:
    """Start a module of ours as a child that inherits `sockets`; a fork where `zygote` gives one.

    A message of more than `max_line` bytes is a ValueError where it is received.

    In a control group of its own where there are `groups`, with `memory_bytes` (0: no bound). The
    child is in a process group of its own: Ctrl-C is for the agent, which ends it in order.

    Raises:
        OSError: the process cannot be made.
    """
    if zygote is not None:
        await zygote.settled()
    making = asyncio.ensure_future(_make(module, name, threads, sockets or {}, zygote, max_line))
    try:
        process = await asyncio.shield(making)
    except asyncio.CancelledError:
        await finish(_undo(making))
        raise
    if groups is not None:
        process.enclose(groups, memory_bytes)
    return process


async def _undo(making: asyncio.Task[ChildProcess]) -> None:
    """Wait for a child that nobody wants any more, and put it down."""
    await asyncio.wait([making])
    if not making.cancelled() and making.exception() is None:
        await making.result().put_down()


async def _make(
    module: str,
    name: str,
    threads: int,
    sockets: dict[str, socket.socket],
    zygote: Forker | None,
    max_line: int,
) -> ChildProcess:
    async with AsyncExitStack() as opened:
        control, control_end = await _channel(opened, max_line)
        stderr, stderr_end = await _channel(opened)
        inherited = {"control": control_end, **sockets}
        pid = None
        if zygote is not None:
            pid = await zygote.fork(module, {**inherited, "stderr": stderr_end})
        process = _Fork(pid) if pid else _start(module, threads, inherited, stderr_end)
        # Nothing waits from here on: a process that runs has an owner.
        opened.pop_all()
        control_end.close()
        stderr_end.close()
        _log.debug("%s: %s, pid %d", name, "forked" if pid else "started", process.pid)
        return ChildProcess(name, process, control, stderr)


def _start(
    module: str, threads: int, inherited: dict[str, socket.socket], stderr: socket.socket
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # returns when the child has begun, in 2 ms
        child.command(module, **{key: sock.fileno() for key, sock in inherited.items()}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr.fileno(),
        env=child.environment(dict(os.environ), threads=threads),
        pass_fds=[sock.fileno() for sock in inherited.values()],
        process_group=0,
    )


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Do it to the end, however often cancelled meanwhile: for what must not be half done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # not the task itself: our cancellation is not its
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # nobody else will ask for it
        raise cancelled
    return task.result()


async def give_up(task: asyncio.Task[Any]) -> None:
    """Cancel a task of ours and wait until it has ended. However it ends, it is not told here.

    Not `suppress(CancelledError)` around the task itself: that swallows our own cancellation too.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # nobody else will ask for it


async def _channel(
    opened: AsyncExitStack, max_line: int = MAX_LINE
) -> tuple[_Stream, socket.socket]:
    ours, theirs = socket.socketpair()
    opened.callback(theirs.close)
    opened.callback(ours.close)
    reader, writer = await asyncio.open_connection(sock=ours, limit=max_line)
    opened.callback(writer.close)
    return (reader, writer), theirs
