"""A candidate that answers a share of the live requests: real processes, under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgefleet_agent.ports import CanaryReport, Failed, ModelSpec
from edgefleet_agent.runtime import canaries
from edgefleet_contract.bundle import Digest, Limits, TensorSpec
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import Load, RunningHost, running, until
from tests.agent.models import asked_spec, linear_spec, make_spec, pixels, rival_spec, with_model

ZERO = json.dumps({"instances": np.zeros((1, 64)).tolist()}).encode()
PREDICT = "/v1/models/digits:predict"
NUMBER = TensorSpec("i", "int64", (-1,))
X, Y = TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))


def begin(here: RunningHost, spec: ModelSpec, **more: Any) -> Future[CanaryReport | Failed]:
    """A canary that runs beside the test, once the front has its worker."""
    settings = {"seconds": 60, "share": 0.5, "min_requests": 1, "max_failures": 0} | more
    running = asyncio.run_coroutine_threadsafe(here.host.canary(spec, **settings), here.loop)
    up = f'edgefleet_worker_up{{model="{spec.slot}",version="{spec.version}",label="canary"}} 1'
    until(lambda: up.encode() in here.ask("GET", "/metrics").body or running.done())
    return running


@dataclass
class Clock:
    """What a canary takes for the time: a test says when its own is over, and no machine does."""

    later_s: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.later_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(canaries, "time", found)
    return found


def versions(here: RunningHost, slot: str) -> list[str]:
    """What TensorFlow Serving's status page lists."""
    answer = here.ask("GET", f"/v1/models/{slot}")
    return [item["version"] for item in answer.json().get("model_version_status", ())]


def report(outcome: CanaryReport | Failed) -> CanaryReport:
    assert isinstance(outcome, CanaryReport), outcome
    return outcome


def failed(outcome: CanaryReport | Failed) -> Failed:
    assert isinstance(outcome, Failed), outcome
    return outcome


def asked(most: int) -> bytes:
    """A request that keeps `thorough` busy for so many products; linear1 does not care."""
    return json.dumps({"instances": np.full((1, 64), most).tolist()}).encode()


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_it_answers_its_share_with_its_own_answers_and_then_serves(
    tmp_path: Path, zygote: bool, clock: Clock
) -> None:
    """linear1 answers 1 to zeros, linear2 answers 2."""
    with running(zygote=zygote) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ZERO) as load:
            canary = begin(here, linear_spec(tmp_path, 2), seconds=60, share=0.25)
            load.more(500)
            clock.later_s = 60
            seen = report(canary.result())
            load.more(50)
            assert versions(here, "digits") == ["1"]
        during = dict(load.answers)
        assert load.failures == []
        with Load(here, PREDICT, ZERO, answers=load.answers) as load:
            assert here.do(here.host.activate((linear_spec(tmp_path, 2),))) is None
            load.more(50)
        assert load.failures == []
        assert set(during) == set(load.answers) == {("1", 1.0), ("2", 2.0)}
        total = seen.requests + seen.serving_requests
        assert total > 300
        spread = 4 * (0.25 * 0.75 / total) ** 0.5  # of a fair draw; four deviations
        assert abs(seen.requests / total - 0.25) < spread
        assert seen.requests == during["2", 2.0]  # its counts are its own, and all of them
        assert (seen.failures, seen.serving_failures, seen.share) == (0, 0, 0.25)
        assert 0 < seen.candidate_p50_us <= seen.candidate_p95_us
        assert 0 < seen.serving_p50_us <= seen.serving_p95_us
        assert seen.seconds >= 2
        assert seen.enough


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_one_that_is_killed_under_load_fails_and_costs_no_request(
    tmp_path: Path, zygote: bool
) -> None:
    with running(zygote=zygote) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ZERO) as load:
            canary = begin(here, linear_spec(tmp_path, 2))
            load.more(200)
            os.kill(here.host.canary_pids[0], signal.SIGKILL)
            found = failed(canary.result())
            load.more(200)
        assert load.failures == []
        assert set(load.answers) == {("1", 1.0), ("2", 2.0)}
        assert (found.reason, found.detail) == (Reason.CANARY_FAILED, "its worker died")
        assert (here.stats("digits").failures, here.host.canary_pids) == (0, ())
        assert versions(here, "digits") == ["1"]


def test_what_it_fails_is_answered_by_the_version_that_serves(tmp_path: Path) -> None:
    """The logarithm of 0 has no word in JSON; what serves picks a number."""
    with running() as here:
        picks = make_spec(
            tmp_path, "pick.onnx", {NUMBER: np.array([1])}, {Y: np.full(1, 20, np.float32)}
        )
        one = np.ones(2, np.float32)
        logs = make_spec(tmp_path, "log.onnx", {X: one}, {Y: one * 0}, version=2)
        here.do(here.host.activate((picks,)))
        canary = begin(here, logs, share=1.0, max_failures=9)
        named = here.ask("POST", "/v1/models/digits/versions/2:predict", {"instances": [0]})
        assert named.status == 500
        answers = [here.predict("digits", {"instances": [0]}) for _ in range(10)]
        seen = report(canary.result(10))
        assert {answer.status for answer in answers} == {200}
        assert {answer.headers["edgefleet-model-version"] for answer in answers} == {"1"}
        assert (seen.requests, seen.failures, seen.serving_failures) == (10, 10, 0)
        assert seen.serving_requests == 10
        assert seen.seconds < 60  # one failure more than is forgiven ends it


def test_what_it_refuses_and_the_other_takes_is_a_failure_of_its(tmp_path: Path) -> None:
    """Its input is a whole number."""
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        odd = asked_spec(tmp_path, "busy.onnx", 1, slot="digits", version=2)
        with Load(here, PREDICT, ZERO) as load:
            seen = report(begin(here, odd, share=1.0).result(20))
        assert load.failures == []
        assert seen.failures == seen.requests > 0
        assert seen.candidate_p50_us == 0


def test_what_both_refuse_is_the_requests_fault(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        canary = begin(here, linear_spec(tmp_path, 2), share=1.0, seconds=1)
        for _ in range(5):
            answer = here.predict("digits", {"instances": [["no", "number"]]})
            assert (answer.status, answer.headers["edgefleet-model-version"]) == (400, "1")
        named = here.ask("POST", "/v1/models/digits/labels/canary:predict", {"instances": [1]})
        assert (named.status, named.headers["edgefleet-model-version"]) == (400, "2")
        seen = report(canary.result())
        assert (seen.requests, seen.failures, seen.serving_failures) == (0, 0, 0)
        assert not seen.enough


def test_one_that_overruns_is_killed_and_the_other_answers_within_the_deadline(
    tmp_path: Path,
) -> None:
    with running(deadline_s=2) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, asked(10_000_000), clients=2) as load:
            found = failed(begin(here, rival_spec(tmp_path, "thorough.onnx")).result(30))
            load.more(20)
        assert load.failures == []
        assert {version for version, _ in load.answers} == {"1"}
        assert max(load.seconds) < 2
        assert found.reason is Reason.CANARY_FAILED


def test_every_page_knows_both_versions_while_both_are_there(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        canary = begin(here, linear_spec(tmp_path, 2), share=1.0)
        models = "/v1/models/digits"
        assert versions(here, "digits") == ["1", "2"]
        for path, version in (
            ("/labels/stable", "1"),
            ("/labels/canary", "2"),
            ("/versions/2", "2"),
        ):
            assert [item["version"] for item in status(here, models + path)] == [version]
            answer = here.ask("POST", f"{models}{path}:predict", ZERO)
            assert answer.headers["edgefleet-model-version"] == version
            assert answer.json()["predictions"][0][0] == float(version)
        assert here.ask("GET", f"{models}/labels/other").status == 404
        v2 = here.ask("GET", "/v2/models/digits").json()
        assert v2["versions"] == ["1", "2"]
        assert here.ask("GET", "/v2/models/digits/versions/2/ready").status == 200
        refused = here.ask("GET", "/v2/models/digits/versions/3").json()["error"]
        assert refused.endswith("not served here, 1 and 2 are")
        index = here.ask("POST", "/v2/repository/index", {}).json()
        assert [(item["name"], item["version"]) for item in index] == [
            ("digits", "1"),
            ("digits", "2"),
        ]
        listed = here.ask("GET", "/v1/models").json()["models"]
        assert [item["label"] for item in listed] == ["stable", "canary"]
        metrics = here.ask("GET", "/metrics").body.decode()
        assert 'edgefleet_requests_total{model="digits",version="1",code="200"} 1\n' in metrics
        of_canary = 'model="digits",version="2",label="canary"'
        assert f'edgefleet_requests_total{{{of_canary},code="200"}} 2\n' in metrics
        assert f"edgefleet_worker_up{{{of_canary}}} 1\n" in metrics
        canary.cancel()
        until(lambda: versions(here, "digits") == ["1"])
        assert here.ask("GET", f"{models}/labels/canary").status == 404


def status(here: RunningHost, path: str) -> Any:
    return here.ask("GET", path).json()["model_version_status"]


@pytest.mark.parametrize("after_ms", [0, 5, 50, 200, 400, 800])
def test_one_given_up_at_any_point_leaves_nothing_and_costs_no_request(
    tmp_path: Path, after_ms: int
) -> None:
    others = set(psutil.Process().children())  # of tests before that ended early
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))

        async def give_up() -> None:
            async with asyncio.timeout(after_ms / 1000):
                await here.host.canary(
                    linear_spec(tmp_path, 2), seconds=60, share=0.5, min_requests=1, max_failures=0
                )

        with Load(here, PREDICT, ZERO) as load:
            with pytest.raises(TimeoutError):
                here.do(give_up())
            load.more(20)
        assert load.failures == []
        mine = set(psutil.Process().children()) - others
        assert len(mine) == 3  # the front, the zygote and the worker
        assert here.host.canary_pids == ()


def test_it_finishes_what_it_was_asked_before_it_ends(tmp_path: Path) -> None:
    with running(drain_s=60, deadline_s=120) as here:
        here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 1, version=1),)))
        canary = begin(here, asked_spec(tmp_path, "busy.onnx", 1, version=2), share=1.0)
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(here.predict, "busy", {"instances": [[4000]]})
            outstanding = b'edgefleet_outstanding{model="busy",version="2",label="canary"} 1'
            until(lambda: outstanding in here.ask("GET", "/metrics").body)
            canary.cancel()
            answered = answer.result()
        assert answered.headers["edgefleet-model-version"] == "2"
        assert answered.json() == {"predictions": [[4000.0]]}
        until(lambda: here.host.canary_pids == ())


def test_what_it_fails_after_a_swap_is_answered_by_what_serves_then(tmp_path: Path) -> None:
    with running(drain_s=0.2, deadline_s=120) as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        canary = begin(here, rival_spec(tmp_path, "thorough.onnx"), share=1.0)
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(here.ask, "POST", PREDICT, asked(10_000_000))
            outstanding = b'edgefleet_outstanding{model="digits",version="2",label="canary"} 1'
            until(lambda: outstanding in here.ask("GET", "/metrics").body)
            assert here.do(here.host.activate((linear_spec(tmp_path, 3),))) is None
            canary.cancel()
            answered = answer.result()
        assert (answered.status, answered.headers["edgefleet-model-version"]) == (200, "3")


def test_a_front_that_dies_knows_the_canary_when_it_is_back(tmp_path: Path, clock: Clock) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        canary = begin(here, linear_spec(tmp_path, 2), seconds=60)
        before = here.host.front_pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        until(lambda: here.host.front_pid not in (None, before))
        with Load(here, PREDICT, ZERO) as load:
            load.more(100)
            clock.later_s = 60
            seen = report(canary.result())
            load.more(20)
        assert load.failures == []
        assert seen.requests > 0
        assert versions(here, "digits") == ["1"]


def test_it_stays_beside_what_a_swap_brings(tmp_path: Path, clock: Clock) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ZERO) as load:
            canary = begin(here, linear_spec(tmp_path, 2), seconds=60)
            load.more(50)
            assert here.do(here.host.activate((linear_spec(tmp_path, 3),))) is None
            assert versions(here, "digits") == ["3", "2"]
            load.more(50)
            clock.later_s = 60
            seen = report(canary.result(10))
            load.more(50)
        assert load.failures == []
        assert set(load.answers) == {("1", 1.0), ("2", 2.0), ("3", 1.0)}
        assert seen.requests == load.answers["2", 2.0]
        assert seen.serving_failures == 0
        assert versions(here, "digits") == ["3"]


def test_a_slot_that_is_stopped_takes_its_canary_along(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        canary = begin(here, linear_spec(tmp_path, 2), share=1.0)
        here.do(here.host.deactivate("digits"))
        assert here.predict("digits", ZERO).status == 404
        report(canary.result(10))


def test_where_nothing_serves_or_memory_is_short_there_is_none(tmp_path: Path) -> None:
    limitless = {"seconds": 60, "share": 1.0, "min_requests": 1, "max_failures": 0}
    with running() as here:
        seen = here.do(here.host.canary(linear_spec(tmp_path, 2), **limitless), timeout=5)
        assert report(seen) == CanaryReport()
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        vast = replace(linear_spec(tmp_path, 2), limits=Limits(ram_mib=1 << 30))
        seen = here.do(here.host.canary(vast, **limitless | {"min_requests": 0}), timeout=5)
        assert report(seen) == CanaryReport(enough=True)


def test_one_that_does_not_load_says_why(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        bad = with_model(linear_spec(tmp_path, 2), sha256=Digest("0" * 64))
        assert failed(begin(here, bad).result()).reason is Reason.DIGEST_MISMATCH
        assert here.predict("digits", {"instances": pixels(1).tolist()}).status == 200


def test_it_has_the_priority_of_those_that_serve(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        canary = begin(here, linear_spec(tmp_path, 2))
        serving = psutil.Process(here.host.worker_pids["digits"])
        (pid,) = here.host.canary_pids
        assert psutil.Process(pid).nice() == serving.nice()
        assert os.sched_getscheduler(pid) == os.sched_getscheduler(serving.pid)
        canary.cancel()
