"""A board to log in to: a real sshd on a free port of this machine, and its keys."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

BIN = Path(sys.executable).parent


def sshd() -> str:
    """The program; skips where there is none, and fails in CI."""
    found = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if found and shutil.which("ssh"):
        return found
    if os.environ.get("CI"):
        pytest.fail("sshd is not installed")
    pytest.skip("sshd is not installed: sudo apt-get install openssh-server")


@dataclass(frozen=True)
class LoggedIn:
    """`place` names the board, `ssh` is the command that gets there."""

    place: str
    ssh: str


@contextmanager
def board(folder: Path, *, program: Path = BIN / "edge-agent") -> Iterator[LoggedIn]:
    """An sshd that lets this user in by a key, and nobody else."""
    daemon = sshd()
    for name in ("host", "user"):
        made = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
        subprocess.run(made, check=True)
    with suppress(OSError):
        Path("/run/sshd").mkdir(exist_ok=True)  # where privileges are dropped, as root
    port = free_port()
    state = folder / "state"
    state.mkdir()
    settings = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "SetEnv": f"PYTHONPATH={os.environ.get('PYTHONPATH', '')} EDGE_AGENT_STATE={state}"
        f" TMPDIR={folder}",
    }
    config = folder / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    known = (folder / "host.pub").read_text().split()[:2]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {' '.join(known)}\n")
    log = (folder / "sshd.log").open("wb")
    process = subprocess.Popen([daemon, "-D", "-e", "-f", config], stderr=log)
    try:
        _until_it_listens(port, process)
        yield LoggedIn(
            f"ssh://{getpass.getuser()}@127.0.0.1:{port}{program}",
            f"ssh -F none -i {folder / 'user'} -o UserKnownHostsFile={folder / 'known'}"
            " -o IdentitiesOnly=yes",
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        log.close()


def _until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert process.poll() is None, "sshd does not start"
        assert time.monotonic() < end, "sshd does not listen"
        time.sleep(0.01)
