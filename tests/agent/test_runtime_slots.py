"""Large bodies, through shared memory and around it: real processes, answers checked to the bit."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from edgefleet_agent.runtime import slots
from tests.agent.hosting import Answered, RunningHost, running, until
from tests.agent.models import linear, linear_spec, pixels

IN_A_SLOT, BESIDE = 2000, slots.SIZE // 256 + 1  # rows of 256 bytes


def infer(here: RunningHost, rows: int) -> Answered:
    x = pixels(rows)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
    head = json.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": x.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return here.ask("POST", "/v2/models/digits/infer", head + x.tobytes(), headers)


def is_right(answer: Answered, rows: int) -> bool:
    start = int(answer.headers["inference-header-content-length"])
    found = np.frombuffer(answer.body[start:], np.float32).reshape(rows, 10)
    return bool(np.array_equal(found, linear(pixels(rows))))


def shared(pid: int) -> int:
    """Bytes of the slots that are in memory, as one side maps them."""
    maps = [m for m in psutil.Process(pid).memory_maps() if "edgefleet-slots" in m.path]
    assert maps, "there is no shared memory"
    return sum(m.rss for m in maps)


def test_bodies_of_every_size_are_answered_right_at_once_and_in_turn(tmp_path: Path) -> None:
    sizes = [1, 127, 128, IN_A_SLOT, 3, 5000, BESIDE, 200, IN_A_SLOT + 1, BESIDE - 1] * 3
    with running() as here, ThreadPoolExecutor(4) as pool:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        for rows, answer in zip(sizes, pool.map(lambda n: infer(here, n), sizes), strict=True):
            assert answer.status == 200, answer.body[:200]
            assert is_right(answer, rows)


def test_a_large_body_leaves_little_behind(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        pid = here.host.worker_pids["digits"]
        for rows in (IN_A_SLOT, BESIDE - 1, BESIDE, 1):
            assert is_right(infer(here, rows), rows)
        assert 0 < shared(pid) <= slots.COUNT * slots.KEPT


def test_what_lay_in_a_slot_is_asked_again_of_the_next_worker(tmp_path: Path) -> None:
    with running() as here, ThreadPoolExecutor(4) as pool:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        for kills in (1, 2, 3):
            asked = [pool.submit(infer, here, IN_A_SLOT + i) for i in range(12)]
            os.kill(here.host.worker_pids["digits"], signal.SIGKILL)
            for i, answer in enumerate(asked):
                assert answer.result().status == 200
                assert is_right(answer.result(), IN_A_SLOT + i)
            until(lambda kills=kills: here.stats("digits").restarts == kills)
            until(lambda: here.stats("digits").ready)
