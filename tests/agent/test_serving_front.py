"""The front process: what it must not weigh, and how quietly it waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import psutil

from tests.agent.hosting import running, until

HEAVY = {
    "ai_edge_litert",
    "cryptography",
    "numpy",
    "onnxruntime",
    "paho",
    "psutil",
    "requests",
    "tflite_runtime",
}


def loaded_by(*modules: str) -> set[str]:
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_front_loads_nothing_heavy() -> None:
    loaded = loaded_by("edgefleet_agent.serving.front")
    assert "uvicorn" in loaded
    assert loaded & HEAVY == set()


def test_the_agent_itself_loads_no_runtime_and_no_numpy() -> None:
    loaded = loaded_by("edgefleet_agent.runtime.host", "edgefleet_agent.runtime.choice")
    assert loaded & HEAVY <= {"psutil", "cryptography"}


def test_a_worker_loads_numpy_and_no_client_library() -> None:
    loaded = loaded_by("edgefleet_agent.runtime.worker", "edgefleet_agent.runtime.trial")
    assert loaded & HEAVY == {"numpy"}


def test_an_idle_front_stays_small() -> None:
    with running() as here:
        assert here.host.front_pid is not None
        assert psutil.Process(here.host.front_pid).memory_info().rss < 48 * 1024 * 1024


def test_an_idle_front_sleeps() -> None:
    """uvicorn's own loop would wake ten times a second."""
    with running() as here:
        assert here.ask("GET", "/v2/health/live").status == 200
        assert here.host.front_pid is not None
        status = Path(f"/proc/{here.host.front_pid}/status")

        def sleeps() -> int:
            return int(status.read_text().rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])

        time.sleep(0.5)  # what the request left to do is done
        before = sleeps()
        time.sleep(1)  # idleness is seen by looking for a while
        assert sleeps() - before <= 3


def test_every_answer_says_when_it_was_made() -> None:
    with running() as here:
        for path in ("/v2/health/live", "/nowhere"):
            said = parsedate_to_datetime(here.ask("GET", path).headers["date"])
            assert abs(said.timestamp() - time.time()) < 5


def test_a_front_that_is_told_to_end_ends_and_is_replaced() -> None:
    with running() as here:
        first = here.host.front_pid
        assert first is not None
        os.kill(first, signal.SIGTERM)
        until(lambda: here.host.front_pid not in (None, first))
        assert here.ask("GET", "/v2/health/live").status == 200
