"""The front process: what it must not weigh."""

from __future__ import annotations

import subprocess
import sys

import psutil

from tests.agent.hosting import running

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
