"""A child that tells what it got from where it was forked, for `test_runtime_zygote`."""

from __future__ import annotations

import os
import random
import resource
import threading
from pathlib import Path

import numpy as np

from edgefleet_agent.runtime import child
from edgefleet_agent.runtime.zygote import count_threads

OPEN = Path("/proc/self/fd")


def main(argv: list[str]) -> None:
    control = child.Control(child.arguments(argv)["control"])
    control.send(
        draws=[random.random(), float(np.random.random()), os.urandom(8).hex()],
        fds=sorted(int(fd.name) for fd in OPEN.iterdir() if fd.exists()),  # not its own
        threads=[count_threads(), threading.active_count()],
        nice=os.nice(0),
        cpu_limit=resource.getrlimit(resource.RLIMIT_CPU)[0],
    )
    resource.setrlimit(resource.RLIMIT_CPU, (7, 7))
    os.nice(5)
    control.receive()
    raise SystemExit(3)
