"""A candidate in shadow beside a version that serves: real processes, under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgefleet_agent.ports import Failed, ModelSpec, ShadowReport
from edgefleet_agent.runtime.shadow_process import is_starved
from edgefleet_contract.bundle import Digest
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import Load, RunningHost, running, until
from tests.agent.models import (
    asked_spec,
    linear_spec,
    pixels,
    rival_spec,
    with_model,
)

PREDICT = "/v1/models/digits:predict"
ROWS = json.dumps({"instances": pixels(2).tolist()}).encode()


def asked(most: int) -> bytes:
    """A request that keeps `thorough` busy for so many products; linear1 does not care."""
    return json.dumps({"instances": np.full((1, 64), most).tolist()}).encode()


def begin(here: RunningHost, spec: ModelSpec, **more: Any) -> Future[ShadowReport | Failed]:
    """A shadow that runs beside the test, once it takes copies."""
    settings = {"seconds": 60, "share": 1.0, "min_requests": 1, "max_cpu_share": 1.0} | more
    work = here.host.shadow(spec, **settings)
    running = asyncio.run_coroutine_threadsafe(work, here.loop)
    until(lambda: bool(here.host.shadow_pids) or running.done())
    return running


def has_answered(here: RunningHost) -> bool:
    """Whether a candidate has told of a copy that it answered."""
    shadows = tuple(here.host._shadows._running.values())  # in one step: they change beside
    return any(shadow._last.requests for shadow in shadows)


def compared(
    here: RunningHost, spec: ModelSpec, *, seconds: float, least: int = 1, **more: Any
) -> ShadowReport:
    """Of a shadow that compared so many requests. It runs where nobody else wants to: on a board
    without time for it there are none, so it runs again, for twice as long."""
    while True:
        seen = report(begin(here, spec, seconds=seconds, **more).result())
        if seen.requests >= least or seconds > 60:
            return seen
        seconds *= 2


def report(outcome: ShadowReport | Failed) -> ShadowReport:
    assert isinstance(outcome, ShadowReport), outcome
    return outcome


def failed(outcome: ShadowReport | Failed) -> Failed:
    assert isinstance(outcome, Failed), outcome
    return outcome


def p99_ms(load: Load) -> float:
    return float(np.quantile(load.seconds, 0.99)) * 1e3


def test_an_identical_model_agrees_with_itself_and_costs_no_live_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ROWS) as alone:
            alone.more(1500)
        with Load(here, PREDICT, ROWS) as load:
            candidate = linear_spec(tmp_path, 3)
            seen = compared(here, candidate, seconds=2, least=11, max_cpu_share=0.2)
            load.more(1)
        assert alone.failures == load.failures == []
        assert {version for version, _ in load.answers} == {"1"}
        assert seen.requests > 10
        assert (seen.errors, seen.judged, seen.agreement) == (0, seen.requests, 1.0)
        assert (seen.max_abs_diff, seen.mean_abs_diff) == (0.0, 0.0)
        assert 0 < seen.candidate_p50_us <= seen.candidate_p95_us
        assert 0 < seen.serving_p50_us <= seen.serving_p95_us
        assert seen.requests < seen.served <= load.total
        assert seen.seconds >= 2
        assert seen.enough
        assert here.stats("digits").failures == 0
    with capsys.disabled():
        ratio = p99_ms(load) / p99_ms(alone)
        print(
            f"\nlive p99 {p99_ms(load):.2f} ms beside a shadow, {p99_ms(alone):.2f} ms without:"
            f" ratio {ratio:.2f}; {seen.requests} of {seen.served} copied, cpu {seen.cpu_s:.2f} s"
        )


def test_a_model_that_says_something_else_does_not_agree(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ROWS, clients=1) as load:
            seen = compared(here, rival_spec(tmp_path, "opposite.onnx"), seconds=1)
        assert load.failures == []
        assert seen.requests > 0
        assert seen.agreement == 0.0
        assert seen.max_abs_diff > 100


def test_a_model_that_differs_by_a_constant_agrees_and_the_difference_is_told(
    tmp_path: Path,
) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ROWS, clients=1):
            seen = compared(here, linear_spec(tmp_path, 2), seconds=1)
        assert (seen.agreement, seen.max_abs_diff, seen.mean_abs_diff) == (1.0, 1.0, 1.0)


V2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 64]}]}
IN_JSON = {"inputs": [V2["inputs"][0] | {"data": pixels(2).tolist()}]}
IN_BINARY = json.dumps(
    {"inputs": [V2["inputs"][0] | {"parameters": {"binary_data_size": 512}}]}
    | {"parameters": {"binary_data_output": True}}
).encode()


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v2/models/digits/infer", IN_JSON, {}),
        (
            "/v2/models/digits/infer",
            IN_BINARY + pixels(2).tobytes(),
            {"Inference-Header-Content-Length": str(len(IN_BINARY))},
        ),
        ("/v1/models/digits:classify", {"examples": [{"x": [1] * 64}]}, {}),
    ],
    ids=["v2 json", "v2 binary", "v1 classify"],
)
def test_requests_of_every_protocol_are_copied_and_compared(
    tmp_path: Path, path: str, body: object, headers: dict[str, str]
) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with ThreadPoolExecutor() as pool:
            comparing = pool.submit(compared, here, linear_spec(tmp_path, 2), seconds=1)
            while not comparing.done():
                assert here.ask("POST", path, body, headers).status == 200
        seen = comparing.result()
        assert seen.requests > 0
        assert (seen.errors, seen.judged, seen.agreement) == (0, seen.requests, 1.0)
        assert (seen.max_abs_diff, seen.mean_abs_diff) == (1.0, 1.0)  # the versions' constants


def test_a_share_of_the_requests_is_copied(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        shadow = begin(here, linear_spec(tmp_path, 3), seconds=3, share=0.0, min_requests=1)
        with Load(here, PREDICT, ROWS, clients=1) as load:
            load.more(100)
            seen = report(shadow.result())
        assert (seen.requests, seen.enough) == (0, False)
        assert seen.served >= 100


def test_nobody_asked_is_a_report_of_no_requests(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        seen = report(begin(here, linear_spec(tmp_path, 3), seconds=0.3).result())
        assert (seen.requests, seen.served, seen.agreement, seen.enough) == (0, 0, None, False)


def test_where_nothing_serves_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    with running() as here:
        seen = here.do(
            here.host.shadow(
                linear_spec(tmp_path), seconds=60, share=1, min_requests=1, max_cpu_share=1
            ),
            timeout=5,
        )
        assert report(seen).requests == 0


def test_what_a_candidate_refuses_is_an_error_of_the_candidate_alone(tmp_path: Path) -> None:
    """Its input is a whole number."""
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ROWS, clients=1) as load:
            seen = compared(here, odd_spec(tmp_path), seconds=1)
        assert load.failures == []
        assert seen.errors == seen.requests > 0
        assert (seen.judged, seen.agreement, seen.candidate_p50_us) == (0, None, 0)
        assert here.stats("digits").failures == 0


def odd_spec(folder: Path) -> ModelSpec:
    return asked_spec(folder, "busy.onnx", 1, slot="digits", version=2)


def test_a_candidate_keeps_within_its_share_of_a_core(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        body = asked(20)
        with Load(here, PREDICT, body, clients=1) as load:
            candidate = rival_spec(tmp_path, "thorough.onnx")
            seen = compared(here, candidate, seconds=5, max_cpu_share=0.1)
        assert load.failures == []
        assert seen.requests > 0
        one = seen.cpu_s / seen.requests
        assert seen.cpu_s <= 0.1 * seen.seconds + 2 * one
        assert seen.agreement == 1.0


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_it_stands_back_for_everybody(tmp_path: Path, zygote: bool) -> None:
    with running(zygote=zygote) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        shadow = begin(here, linear_spec(tmp_path, 3))
        (pid,) = here.host.shadow_pids
        process = psutil.Process(pid)
        assert process.nice() == 19
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "700\n"
        assert process.net_connections("inet") == []
        shadow.cancel()


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_a_candidate_that_is_killed_fails_and_costs_no_live_request(
    tmp_path: Path, zygote: bool
) -> None:
    with running(zygote=zygote) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ROWS) as load:
            shadow = begin(here, linear_spec(tmp_path, 3))
            load.more(200)
            os.kill(here.host.shadow_pids[0], signal.SIGKILL)
            found = failed(shadow.result())
            load.more(200)
        assert found.reason is Reason.TRIAL_CRASHED
        assert "SIGKILL" in found.detail
        assert load.failures == []
        assert here.stats("digits").failures == 0


def test_a_candidate_that_computes_for_ever_is_ended_at_the_deadline(tmp_path: Path) -> None:
    with running(deadline_s=0.5) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, asked(10_000_000), clients=1) as load:
            found = failed(begin(here, rival_spec(tmp_path, "thorough.onnx")).result(100))
        assert found.reason is Reason.TRIAL_TIMEOUT
        assert "0.5 s" in found.detail
        assert load.failures == []


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_a_candidate_that_stands_still_is_ended_at_the_deadline(
    tmp_path: Path, zygote: bool
) -> None:
    with running(zygote=zygote, deadline_s=0.5) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ROWS, clients=1) as load:
            shadow = begin(here, linear_spec(tmp_path, 3))
            until(lambda: has_answered(here))  # before, the front knows of nobody who could hang
            os.kill(here.host.shadow_pids[0], signal.SIGSTOP)
            found = failed(shadow.result(20))
            load.more(100)
        assert found.reason is Reason.TRIAL_TIMEOUT
        assert load.failures == []


def test_a_candidate_that_hangs_when_the_time_is_over_is_found_out_too(tmp_path: Path) -> None:
    with running(deadline_s=1.0) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        shadow = begin(here, linear_spec(tmp_path, 3), seconds=0.2)
        os.kill(here.host.shadow_pids[0], signal.SIGSTOP)
        assert failed(shadow.result(20)).reason is Reason.TRIAL_TIMEOUT


def test_a_board_without_time_to_spare_is_not_the_candidates_fault(tmp_path: Path) -> None:
    """Both are held to one core, which another program wants all of."""
    with running(deadline_s=0.5) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        shadow = begin(here, rival_spec(tmp_path, "thorough.onnx"), seconds=2)
        (pid,) = here.host.shadow_pids
        psutil.Process(pid).cpu_affinity([0])
        hog = "import os\nos.sched_setaffinity(0, [0])\nwhile True: pass"
        with subprocess.Popen([sys.executable, "-c", hog]) as other:
            try:
                until(lambda: psutil.Process(other.pid).cpu_times().user > 0.1)
                with Load(here, PREDICT, asked(10_000), clients=1) as load:
                    until(lambda: here.do(is_starved(pid)))
                    assert report(shadow.result(20)).requests == 0
                assert load.failures == []
            finally:
                other.kill()


def test_a_candidate_that_does_not_load_says_why(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        bad = with_model(linear_spec(tmp_path, 2), sha256=Digest("0" * 64))
        assert failed(begin(here, bad).result()).reason is Reason.DIGEST_MISMATCH


def test_a_front_that_dies_goes_on_copying_when_it_is_back(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        shadow = begin(here, linear_spec(tmp_path, 3))
        before = here.host.front_pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        until(lambda: here.host.front_pid not in (None, before))
        with Load(here, PREDICT, ROWS, clients=1) as load:
            until(lambda: has_answered(here))
            shadow.cancel()
            until(lambda: here.host.shadow_pids == ())
        assert load.failures == []


@pytest.mark.parametrize("after_ms", [0, 5, 50, 200, 400, 800])
def test_a_shadow_given_up_at_any_point_leaves_nothing(tmp_path: Path, after_ms: int) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))

        async def give_up() -> None:
            async with asyncio.timeout(after_ms / 1000):
                await here.host.shadow(
                    linear_spec(tmp_path, 3), seconds=60, share=1, min_requests=1, max_cpu_share=1
                )

        with Load(here, PREDICT, ROWS, clients=1) as load:
            with pytest.raises(TimeoutError):
                here.do(give_up())
            load.more(20)
        assert load.failures == []
        assert len(psutil.Process().children()) == 3  # the front, the zygote and the worker
        assert here.host.shadow_pids == ()
