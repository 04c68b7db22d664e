"""The fork server: imports the runtimes once; every worker, trial and shadow is a fork of it.

Run as `python -m edgefleet_agent.runtime.zygote`. It opens no session, starts no thread and is told
no secret: a fork hears of its model on a channel of its own. What a fork inherits is memory; its
descriptors, limits, priority and seeds are its own.

A fork is a child of the agent, not of this process (CLONE_PARENT). So the agent sees by itself how
it ended, and a zygote that dies takes nobody along. Until the agent has moved a fork to a process
group of its own, it is in ours: whoever ends the group ends what nobody has taken charge of.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import platform
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.engine import CannotLoad
from edgefleet_agent.runtime.engines import preload

PRELOADED: Final = tuple(
    f"edgefleet_agent.runtime.{name}" for name in ("worker", "trial", "shadow")
)
FORKED: Final = (*PRELOADED, "edgefleet_agent.sources.runner")
"""The modules that a fork may become. A board without sources has nothing of the last."""

MAX_REQUEST: Final = 4096
_MAX_FDS: Final = 8
_CLONE_PARENT: Final = 0x8000


class CannotFork(Exception):
    """This board or this moment does not allow it; the message says why."""


def clone_number(machine: str, *, is_64_bit: bool) -> int:
    """The number of the system call `clone`. A 64-bit kernel may run a 32-bit Python.

    Raises:
        CannotFork: for another processor than those that boards have.
    """
    numbers = {"x86_64": 56, "aarch64": 220} if is_64_bit else {}
    known = machine.startswith(("arm", "aarch64", "i", "x86_64"))
    if machine not in numbers and (is_64_bit or not known):
        raise CannotFork(f"the number of clone() on {machine} is not known")
    return numbers.get(machine, 120)


def count_threads() -> int:
    """The threads of this process, those of native libraries too."""
    return len(list(Path("/proc/self/task").iterdir()))


def fork_for_parent() -> int:
    """As `os.fork`, but the fork is a child of our parent.

    `fork()` of the C library cannot do this. What it does beyond the system call is for processes
    of several threads, and this one has one.

    Raises:
        CannotFork: there are other threads, or the kernel refuses.
    """
    threads = count_threads()
    if threads != 1:
        raise CannotFork(f"the zygote has {threads} threads")
    number = clone_number(platform.machine(), is_64_bit=sys.maxsize > 2**32)
    python = ctypes.pythonapi
    clone = ctypes.PyDLL(None, use_errno=True).syscall  # PyDLL: with Python's lock held throughout
    clone.restype = ctypes.c_long
    arguments = [
        ctypes.c_long(value) for value in (number, _CLONE_PARENT | signal.SIGCHLD, *[0] * 4)
    ]
    python.PyOS_BeforeFork()
    pid = int(clone(*arguments))
    error = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise CannotFork(os.strerror(error))
    return pid


def serve(requests: socket.socket, parent: str, own: tuple[socket.socket, ...]) -> None:
    """Fork for every request until the agent hangs up. `own` are closed in forks.

    A request is a JSON object (`module`, `names`) with a descriptor for every name; the answer has
    the `pid` or says what `failed`.
    """
    while True:
        raw, fds, _, _ = socket.recv_fds(requests, MAX_REQUEST, _MAX_FDS)
        if not raw:
            return
        request: dict[str, Any] = json.loads(raw)
        try:
            pid = fork_for_parent()
        except CannotFork as error:
            answer: dict[str, object] = {"failed": str(error)}
        else:
            if pid == 0:
                for sock in (requests, *own):
                    os.close(sock.detach())  # close() would wait for files made of it
                _become(request["module"], parent, dict(zip(request["names"], fds, strict=True)))
            answer = {"pid": pid}
        for fd in fds:
            os.close(fd)
        requests.send(json.dumps(answer).encode())


def _become(module: str, parent: str, fds: dict[str, int]) -> NoReturn:
    """Be what `python -m module` would be, from its first line to its exit code."""
    code = 1
    try:
        stderr = fds.pop("stderr")
        os.dup2(stderr, 2)
        os.close(stderr)
        if numpy_random := sys.modules.get("numpy.random"):
            numpy_random.seed()  # Python's own are seeded anew by every fork
        program = importlib.import_module(module)
        sys.argv = [str(program.__file__), parent, *(f"{name}={fd}" for name, fd in fds.items())]
        program.main(sys.argv)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter does with what reaches its top
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _preload(engines: list[str]) -> str | None:
    """Import these, and what forks run. The first that started a thread, which ends it."""
    for engine in engines:
        try:
            preload(engine)
        except CannotLoad as error:
            sys.stderr.write(f"{error}\n")  # a fork that needs it says so again
        if count_threads() != 1:
            return engine
    for module in PRELOADED:
        importlib.import_module(module)
    return None


def main(argv: list[str]) -> None:
    """Import, say so, fork."""
    fds = child.arguments(argv)
    control = child.Control(fds["control"])
    requests = socket.socket(fileno=fds["requests"])
    engines = control.receive()["engines"]
    try:
        clone_number(platform.machine(), is_64_bit=sys.maxsize > 2**32)
    except CannotFork as error:
        control.send(failed=str(error))
        return
    if threaded := _preload(engines):
        control.send(threaded=threaded)
        return
    gc.collect()
    gc.freeze()  # a collection in a fork leaves these pages shared
    control.send(ready=True)
    serve(requests, argv[1], (control.socket,))


if __name__ == "__main__":
    main(sys.argv)
