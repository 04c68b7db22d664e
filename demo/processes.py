"""The demo's processes: started with their output in files, and ended with the demo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")
BIN = Path(sys.executable).parent


class DemoError(Exception):
    """A step of the demo did not come out as it must."""


@dataclass
class Processes:
    """What the demo started, by name."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str | Path, env: dict[str, str] | None = None) -> None:
        """Start a program of ours; its output goes to `logs/<name>.log`."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(BIN / command[0]), *map(str, command[1:])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        """End one as systemd would: SIGTERM, and SIGKILL to the whole group after a while."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def stop_all(self) -> None:
        """End all, the last that was started first."""
        for name in reversed(list(self.running)):
            self.stop(name)

    def require_alive(self) -> None:
        """Nothing, while every one runs.

        Raises:
            DemoError: one has ended; the end of its log is in the message.
        """
        for name, process in self.running.items():
            if process.poll() is not None:
                raise DemoError(f"{name} ended with {process.returncode}:\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a log."""
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def wait_for(self, what: str, probe: Callable[[], T | None], *, seconds: float = 60.0) -> T:
        """What `probe` gives as soon as it gives something.

        Raises:
            DemoError: a process ended meanwhile, or the time is over.
        """
        end = monotonic() + seconds
        while monotonic() < end:
            self.require_alive()
            found = probe()
            if found:
                return found
            sleep(0.1)
        raise DemoError(f"{what}: not within {seconds:.0f} s")


def run(*command: str | Path, ok: tuple[int, ...] = (0,), stdin: str = "") -> tuple[int, str, str]:
    """Run a program of ours to its end: exit code, stdout, stderr.

    Raises:
        DemoError: an exit code that is not in `ok`.
    """
    done = subprocess.run(
        [str(BIN / command[0]), *map(str, command[1:])],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in ok:
        words = " ".join(map(str, command))
        raise DemoError(f"`{words}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.returncode, done.stdout, done.stderr


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
