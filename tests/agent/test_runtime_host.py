"""The host: swaps under load, kills, and what is left behind. Everything here is real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgefleet_agent.ports import Failed
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import Load, RunningHost, running, until
from tests.agent.models import (
    asked_spec,
    linear_spec,
    pixels,
    tflite_spec,
    with_model,
)

ZERO = json.dumps({"instances": np.zeros((1, 64)).tolist()}).encode()
PREDICT = "/v1/models/digits:predict"


def worker(here: RunningHost, slot: str = "digits") -> psutil.Process:
    return psutil.Process(here.host.worker_pids[slot])


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_swaps_under_load_lose_no_request_and_every_answer_is_attributable(
    tmp_path: Path, zygote: bool
) -> None:
    with running(zygote=zygote) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, 1),))) is None
        with Load(here, PREDICT, ZERO) as load:
            for version in range(2, 8):
                load.more(400)
                assert here.do(here.host.activate((linear_spec(tmp_path, version),))) is None
            load.more(400)
        assert load.failures == []
        assert load.total > 2500
        # linear1 serves the odd versions and answers 1, linear2 the even ones and answers 2.
        assert all(answer == 1 + (int(v) + 1) % 2 for v, answer in load.answers)
        assert {v for v, _ in load.answers} == {str(v) for v in range(1, 8)}


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_a_killed_worker_under_load_loses_no_request(tmp_path: Path, zygote: bool) -> None:
    with running(zygote=zygote) as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        with Load(here, PREDICT, ZERO) as load:
            for kills in range(1, 4):
                load.more(300)
                worker(here).kill()
                until(lambda kills=kills: here.stats("digits").restarts == kills)
                until(lambda: here.stats("digits").ready)
            load.more(300)
        assert load.failures == []
        until(lambda: here.stats("digits").requests == load.total)
        assert here.stats("digits").failures == 3  # the deaths, and nothing else


def test_a_killed_front_comes_back_with_its_routes_on_the_same_port(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        before = here.host.front_pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        until(lambda: here.host.front_pid not in (None, before))
        assert here.predict("digits", ZERO).json() == {"predictions": [[1.0] * 10]}
        # a swap works through the new front, and drains
        assert here.do(here.host.activate((linear_spec(tmp_path, 2),))) is None
        assert here.predict("digits", ZERO).headers["edgefleet-model-version"] == "2"


def test_a_front_that_dies_as_it_connects_costs_no_worker(tmp_path: Path) -> None:
    """Its greeting goes nowhere then: a worker that died of that would take its model with it."""
    with running() as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, 1),))) is None
        pid = here.host.worker_pids["digits"]
        paths = {c.laddr for c in psutil.Process(pid).net_connections("unix") if c.laddr}
        (path,) = (path for path in paths if Path(path).is_socket())
        os.kill(pid, signal.SIGSTOP)
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as front:
                front.connect(path)
        os.kill(pid, signal.SIGCONT)
        assert here.predict("digits", {"instances": pixels(1).tolist()}).status == 200
        assert (here.host.worker_pids["digits"], here.stats("digits").restarts) == (pid, 0)


def test_a_request_sent_while_the_front_is_down_is_answered_by_the_next_one(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        assert here.host.front_pid is not None
        os.kill(here.host.front_pid, signal.SIGKILL)
        until(lambda: here.host.front_pid is None)
        assert here.predict("digits", ZERO).status == 200


def test_a_version_that_does_not_load_leaves_the_old_one_serving(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        old = worker(here)
        bad = with_model(linear_spec(tmp_path, 2), sha256=Digest("0" * 64))
        failed = here.do(here.host.activate((bad,)))
        assert failed is not None
        assert failed.reason is Reason.ACTIVATION_FAILED
        assert "digest_mismatch" in failed.detail
        assert here.predict("digits", ZERO).headers["edgefleet-model-version"] == "1"
        assert here.host.worker_pids == {"digits": old.pid}


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_an_activation_is_all_or_none(tmp_path: Path, zygote: bool) -> None:
    with running(zygote=zygote) as here:
        bad = with_model(linear_spec(tmp_path, slot="other"), sha256=Digest("0" * 64))
        failed = here.do(here.host.activate((linear_spec(tmp_path), bad)))
        assert isinstance(failed, Failed)
        assert "other" in failed.detail
        assert here.host.stats() == ()
        assert here.predict("digits", ZERO).status == 404
        assert here.ask("GET", "/v1/models").json() == {"models": []}


def test_two_slots_serve_side_by_side_and_one_can_leave(tmp_path: Path) -> None:
    with running() as here:
        both = (linear_spec(tmp_path), tflite_spec(tmp_path, slot="lite"))
        assert here.do(here.host.activate(both)) is None
        body = {"instances": pixels(2).tolist()}
        assert here.predict("digits", body).body == here.predict("lite", body).body
        leaving = worker(here, "lite")
        here.do(here.host.deactivate("lite"))
        here.do(here.host.deactivate("never-there"))
        assert not leaving.is_running()
        assert here.predict("lite", body).status == 404
        assert here.predict("digits", body).status == 200


def test_activating_what_serves_already_changes_nothing(tmp_path: Path) -> None:
    with running() as here:
        spec = linear_spec(tmp_path)
        here.do(here.host.activate((spec,)))
        pid = worker(here).pid
        here.predict("digits", ZERO)
        until(lambda: here.stats("digits").requests == 1)
        assert here.do(here.host.activate((spec,))) is None
        assert worker(here).pid == pid
        assert here.stats("digits").requests == 1


def test_the_old_worker_finishes_what_it_has_and_then_is_gone(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 1, version=1),)))
        old = worker(here, "busy")
        slow = json.dumps({"instances": [[400]]}).encode()
        with Load(here, "/v1/models/busy:predict", slow, clients=1) as load:
            until(lambda: b'edgefleet_outstanding{model="busy",version="1"} 1' in metrics(here))
            here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 1, version=2),)))
            assert not old.is_running()
            load.more(1)
        assert load.failures == []
        assert ("1", 400.0) in load.answers


def metrics(here: RunningHost) -> bytes:
    return here.ask("GET", "/metrics").body


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_a_worker_that_overruns_the_deadline_is_killed_and_replaced(
    tmp_path: Path, zygote: bool
) -> None:
    with running(zygote=zygote, deadline_s=0.5) as here:
        here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 1),)))
        stuck = worker(here, "busy")
        answer = here.predict("busy", {"instances": [[10_000_000]]})
        assert answer.status == 504
        assert "0.5 s" in answer.json()["error"]
        until(lambda: here.stats("busy").restarts == 1)
        assert not stuck.is_running()
        until(lambda: here.stats("busy").ready)
        assert here.predict("busy", {"instances": [[1]]}).json() == {"predictions": [[1.0]]}


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_a_request_that_kills_its_worker_twice_is_given_up(tmp_path: Path, zygote: bool) -> None:
    with running(zygote=zygote, deadline_s=120) as here:
        here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 1),)))
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(here.predict, "busy", {"instances": [[10_000_000]]})
            for kills in (1, 2):
                at_it = worker(here, "busy")
                before = used_s(at_it)  # what idles uses nothing, what computes some, however slow
                until(lambda at_it=at_it, before=before: used_s(at_it) > before + 0.1)
                at_it.kill()
                until(lambda kills=kills: here.stats("busy").restarts == kills)
                until(lambda: here.stats("busy").ready)
            answer = asked.result()
        assert answer.status == 500
        assert "died twice" in answer.json()["error"]
        assert here.predict("busy", {"instances": [[1]]}).status == 200


def used_s(process: psutil.Process) -> float:
    """The processor's time that it took."""
    used = process.cpu_times()
    return float(used.user + used.system)


def test_stats_count_per_version_and_an_interval_begins_anew(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        for _ in range(20):
            here.predict("digits", ZERO)
        here.predict("digits", b"not json")
        until(lambda: here.stats("digits").requests == 21)
        stats = here.host.stats(new_interval=True)[0]
        assert (stats.failures, stats.restarts, stats.interval_requests) == (0, 0, 21)
        assert 0 < stats.latency_p50_us <= stats.latency_p95_us < 1_000_000
        assert stats.worker_rss_bytes > 10 * 1024 * 1024
        assert (stats.engine, stats.variant, stats.ready) == ("onnxruntime", "onnx-test", True)
        again = here.stats("digits")
        assert (again.requests, again.interval_requests, again.latency_p50_us) == (21, 0, 0)
        here.do(here.host.activate((linear_spec(tmp_path, 2),)))
        assert here.stats("digits").requests == 0


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_no_telemetry_and_no_files_outside_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zygote: bool
) -> None:
    home, runs = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    runs.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    with running(zygote=zygote, run_dir=str(runs)) as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        here.predict("digits", ZERO)
        process = worker(here)
        environment = process.environ()
        assert environment["ORT_DISABLE_TELEMETRY"] == "1"
        assert environment["HOME"] == "/nonexistent"
        assert process.net_connections("inet") == []
        assert all(
            file.path.endswith(".pyc") or "w" not in file.mode for file in process.open_files()
        )
    assert list(home.rglob("*")) == []
    assert list(runs.rglob("*")) == []


def test_a_taken_port_is_the_operators_to_mend() -> None:
    async def second(address: str) -> None:
        async with LocalHost(ServingConfig(listen=(address,))):
            raise AssertionError("it must not start")

    with running() as here:
        with pytest.raises(OperatorError, match="Address already in use") as caught:
            asyncio.run(second(here.host.addresses[0]))
        assert "another program listens there" in caught.value.hint


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_when_the_agent_is_killed_nothing_survives_it(tmp_path: Path, zygote: bool) -> None:
    program = (
        "import asyncio, sys, tests.agent.models as m\n"
        "from pathlib import Path\n"
        "from edgefleet_agent.runtime.host import LocalHost\n"
        "from edgefleet_agent.serving.config import ServingConfig\n"
        "async def main():\n"
        "    async with LocalHost(ServingConfig(listen=('127.0.0.1:0',)), zygote=ZYGOTE) as host:\n"
        "        await host.activate((m.linear_spec(Path(sys.argv[1])),))\n"
        "        print('serving', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    ).replace("ZYGOTE", repr(zygote))
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=root
    ) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"serving\n"
        children = psutil.Process(agent.pid).children(recursive=True)
        assert len(children) == 2 + zygote  # the front and the worker
        agent.kill()
        agent.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_an_activation_that_comes_while_the_host_closes_is_refused_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    async def both_at_once() -> Failed | None:
        host = LocalHost(ServingConfig(listen=("127.0.0.1:0",)))
        await host.start()
        assert await host.activate((linear_spec(tmp_path),)) is None
        closing = asyncio.create_task(host.close())
        activating = asyncio.create_task(host.activate((linear_spec(tmp_path, 2),)))
        await closing
        return await activating

    failed = asyncio.run(both_at_once())
    assert failed is not None
    assert failed.reason is Reason.ACTIVATION_FAILED
    assert psutil.Process().children(recursive=True) == []


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
@pytest.mark.parametrize("after_ms", [0, 1, 3, 6, 10, 20, 50, 100, 200, 400])
def test_an_activation_given_up_at_any_point_leaves_one_ready_and_no_stray(
    tmp_path: Path, after_ms: int, zygote: bool
) -> None:
    async def give_up() -> None:
        async with LocalHost(ServingConfig(listen=("127.0.0.1:0",)), zygote=zygote) as host:
            assert await host.activate((linear_spec(tmp_path),)) is None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(after_ms / 1000):
                    await host.activate((linear_spec(tmp_path, 2),))
            (stats,) = host.stats()
            assert stats.ready
            assert len(psutil.Process().children()) == 2 + zygote  # front and worker

    asyncio.run(give_up())
    assert psutil.Process().children(recursive=True) == []


@pytest.mark.parametrize("after_ms", [0, 1, 2, 4, 8, 50])
def test_a_deactivation_given_up_at_any_point_leaves_no_stray(
    tmp_path: Path, after_ms: int
) -> None:
    async def give_up() -> None:
        async with LocalHost(ServingConfig(listen=("127.0.0.1:0",))) as host:
            both = (linear_spec(tmp_path), tflite_spec(tmp_path, slot="lite"))
            assert await host.activate(both) is None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(after_ms / 1000):
                    await host.deactivate("lite")
            assert all(stats.ready for stats in host.stats())
            assert len(psutil.Process().children()) == 2 + len(host.stats())

    asyncio.run(give_up())
    assert psutil.Process().children(recursive=True) == []
