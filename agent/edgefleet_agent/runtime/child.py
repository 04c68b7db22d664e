"""What every process that runs a model does first: it dies with its parent, and may do little.

The parent's half (environment, command line) and the child's half (limits) stand together, so that
one can be read against the other. A child talks to its parent in JSON lines over an inherited
socket, and ends when that closes: the agent cannot leave orphans behind, even by `kill -9`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path, PurePath
from typing import Any, Final, TextIO

TRIAL_ADJ: Final = 1000
SHADOW_ADJ: Final = 700
WORKER_ADJ: Final = 400
"""What is added, in thousandths of the board's memory, to what a process has when the kernel looks
for one to end: a trial before a shadow before a worker, and the front and the agent last."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_KEPT: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR")


def environment(parent: dict[str, str], *, threads: int) -> dict[str, str]:
    """The environment of a child: little of the parent's, and what keeps runtimes quiet and small.

    onnxruntime sends telemetry and writes below `~/.cache` unless told not to, so HOME leads
    nowhere as well. The trim threshold gives freed memory back after large bodies.
    """
    kept = {key: parent[key] for key in parent if key in _KEPT or key.startswith("LC_")}
    return kept | {
        "HOME": "/nonexistent",
        "MALLOC_TRIM_THRESHOLD_": "131072",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def command(module: str, **fds: int) -> list[str]:
    """The command line of a child: this Python, a module of ours, inherited file descriptors.

    `-P`: the working directory is no place to import from.
    """
    return [
        *(sys.executable, "-P", "-m", module, str(os.getpid())),
        *(f"{name}={fd}" for name, fd in fds.items()),
    ]


def arguments(argv: list[str]) -> dict[str, int]:
    """The child's side of `command`: descriptors by name. Binds it to its parent's life.

    Also tells `ps` what it is, `edge-worker` for example: a fork of the zygote has the zygote's
    command line.
    """
    _die_with(int(argv[1]))
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"edge-{PurePath(argv[0]).stem}".encode(), 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent: it stops us in order
    return {name: int(fd) for name, _, fd in (arg.partition("=") for arg in argv[2:])}


class Control:
    """The child's end of the control channel: JSON lines both ways, blocking."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self._lines: TextIO = self.socket.makefile("r", encoding="utf-8")

    def receive(self) -> dict[str, Any]:
        """The next message; ends the process when the parent is gone."""
        line = self._lines.readline()
        if not line:
            raise SystemExit(0)
        message: dict[str, Any] = json.loads(line)
        return message

    def send(self, **message: object) -> None:
        """One message to the parent."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")


def confine(*, cpu_s: int = 0, data_bytes: int = 0) -> None:
    """No core files, no file writes; CPU seconds and private memory bounded where asked (0: not).

    RLIMIT_DATA rather than RLIMIT_AS: runtimes reserve far more addresses than they touch.
    Call it after the imports, which may write byte code.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    if cpu_s:
        _limit(resource.RLIMIT_CPU, cpu_s)
    if data_bytes:
        _limit(resource.RLIMIT_DATA, data_bytes)


def offer(adj: int) -> None:
    """Stand in line for the kernel's out-of-memory killer; raising it takes no privilege."""
    with contextlib.suppress(OSError):  # a sandbox may hide it
        Path("/proc/self/oom_score_adj").write_text(str(adj))


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _die_with(parent: int) -> None:
    # Best effort (a seccomp filter may refuse it): the control channel is the belt to this brace.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        raise SystemExit(0)
