"""Answers that are given again: the same bytes, counted, bounded, and gone with their version."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.ports import ShadowReport
from edgefleet_agent.runtime.frames import Ask
from edgefleet_agent.serving.cache import Cache, key_of
from edgefleet_agent.serving.config import ModelConfig
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import asked_spec, linear, linear_spec, pixels
from tests.agent.test_stateful import ask, memory_spec

KEPT = ModelConfig(cache_mib=1)
ROW = {"instances": pixels(1).tolist()}
OVERHEAD = 256


def metric(here: RunningHost, name: str, slot: str = "digits") -> int | None:
    text = here.ask("GET", "/metrics").body.decode()
    found = [line for line in text.splitlines() if line.startswith(f'{name}{{model="{slot}"')]
    return int(found[0].rpartition(" ")[2]) if found else None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 900)), max_size=60))
def test_it_holds_what_was_asked_for_last_and_no_more_bytes(asked: list[tuple[int, int]]) -> None:
    cache, model = Cache(2000), OrderedDict[int, int]()
    for what, size in asked:
        key = key_of(Ask.INFER_V2, b"%d" % what)
        found = cache.get(key)
        assert (None if found is None else len(found)) == model.get(what)
        if found is not None:
            model.move_to_end(what)
            continue
        assert cache.put(key, bytes(size))
        model[what] = size
        while sum(model.values()) + OVERHEAD * len(model) > 2000:
            model.popitem(last=False)
    assert cache.size == sum(model.values()) + OVERHEAD * len(model)
    assert cache.hits + cache.misses == len(asked)


def test_an_answer_that_is_too_large_is_not_kept_and_pushes_nobody_out() -> None:
    cache = Cache(1000)
    small, large = key_of(Ask.INFER_V2, b"s"), key_of(Ask.INFER_V2, b"l")
    assert cache.put(small, b"1")
    assert not cache.put(large, bytes(1000))
    assert (cache.get(small), cache.get(large)) == (b"1", None)


def test_the_same_body_asked_of_another_method_is_another_request() -> None:
    assert key_of(Ask.CLASSIFY_V1, b"x") != key_of(Ask.REGRESS_V1, b"x")


def test_the_second_answer_is_the_first_and_says_so(tmp_path: Path) -> None:
    with running(models={"digits": KEPT}) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        first, second = here.predict("digits", ROW), here.predict("digits", ROW)
        assert first.headers["cache-status"] == "edgefleet; fwd=miss; stored"
        assert second.headers["cache-status"] == "edgefleet; hit"
        assert first.body == second.body
        assert second.json()["predictions"] == linear(pixels(1)).tolist()
        assert second.headers["edgefleet-model-version"] == "1"
        other = here.predict("digits", {"instances": pixels(2).tolist()})
        assert other.headers["cache-status"] == "edgefleet; fwd=miss; stored"
        wrong = [here.predict("digits", {"instances": [[1]]}) for _ in range(2)]
        assert [(a.status, a.headers["cache-status"]) for a in wrong] == [
            (400, "edgefleet; fwd=miss")
        ] * 2
        assert metric(here, "edgefleet_cache_hits_total") == 1
        assert metric(here, "edgefleet_cache_misses_total") == 4
        until(lambda: here.stats("digits").requests == 5)
        os.kill(here.host.worker_pids["digits"], signal.SIGKILL)
        assert here.predict("digits", ROW).headers["cache-status"] == "edgefleet; hit"


def test_binary_answers_are_kept_with_their_header(tmp_path: Path) -> None:
    x = pixels(1)
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [1, 64],
                    "parameters": {"binary_data_size": x.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    with running(models={"digits": KEPT}) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        answers = [
            here.ask(
                "POST",
                "/v2/models/digits/infer",
                head + x.tobytes(),
                {"Inference-Header-Content-Length": str(len(head))},
            )
            for _ in range(2)
        ]
        assert answers[1].headers["cache-status"] == "edgefleet; hit"
        assert answers[0].body == answers[1].body
        size = int(answers[1].headers["inference-header-content-length"])
        found = np.frombuffer(answers[1].body[size:], np.float32)
        assert np.array_equal(found[None], linear(x))


def test_a_new_version_answers_for_itself(tmp_path: Path) -> None:
    with running(models={"digits": KEPT}) as here:
        for version in (1, 2, 1):
            assert here.do(here.host.activate((linear_spec(tmp_path, version),))) is None
            for status in ("edgefleet; fwd=miss; stored", "edgefleet; hit"):
                answer = here.predict("digits", ROW)
                assert answer.headers["cache-status"] == status
                assert answer.json()["predictions"] == linear(pixels(1), version).tolist()
        assert metric(here, "edgefleet_cache_hits_total") == 1


def test_nothing_is_kept_of_a_stateful_model_or_where_nobody_asked_for_it(tmp_path: Path) -> None:
    with running(models={"memory": KEPT}) as here:
        specs = (memory_spec(tmp_path), linear_spec(tmp_path))
        assert here.do(here.host.activate(specs)) is None
        for n, asked in enumerate((True, False, False), 1):
            answer = ask(here, "memory", 1, sequence_id=1, sequence_start=asked)
            assert answer.json()["predictions"][0][0] == n
            assert "cache-status" not in answer.headers
        assert "cache-status" not in here.predict("digits", ROW).headers
        assert metric(here, "edgefleet_cache_hits_total") is None
        assert metric(here, "edgefleet_cache_hits_total", "memory") is None


def test_a_hit_is_counted_and_not_copied_to_a_candidate(tmp_path: Path) -> None:
    """What it took says nothing of the version that serves, so it is held against none."""
    with running(models={"busy": KEPT}) as here:
        assert here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 2),))) is None
        body: Any = {"instances": [[3]]}
        assert here.predict("busy", body).status == 200
        candidate = asked_spec(tmp_path, "busy.onnx", 2, version=2)
        shadow = here.host.shadow(
            candidate, seconds=1, share=1.0, min_requests=1, max_cpu_share=1.0
        )
        watching = asyncio.run_coroutine_threadsafe(shadow, here.loop)
        while not watching.done():
            assert here.predict("busy", body).headers["cache-status"] == "edgefleet; hit"
        report = watching.result()
        assert isinstance(report, ShadowReport)
        assert report.requests == 0
        assert report.served > 0
