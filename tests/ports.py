"""Ports for programs that are told theirs before they are started.

A port that was free a moment ago is not kept free: the kernel gives those of its own range to
whoever asks for any, and every connection does. So these lie below that range, and a process that
has named one keeps others of ours from naming it until it ends.
"""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

_PORTS: Final = range(20_000, 32_000, 8)  # what a site gives its next fleets lies between


def free_port() -> int:
    """A port that nobody listens on, and that nobody else gets meanwhile."""
    for port in random.sample(_PORTS, len(_PORTS)):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0edgefleet-test-port-{port}")
        except OSError:
            name.close()
            continue
        name.detach()  # it stays bound until this process ends
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no port is free")
