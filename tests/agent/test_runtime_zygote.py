"""The zygote: what a fork gets and does not get from it, and that nothing depends on it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from edgefleet_agent.ports import FileSeal
from edgefleet_agent.runtime import zygote, zygote_process
from edgefleet_agent.runtime.process import spawn
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_contract.bundle import Digest
from tests.agent.hosting import Load, RunningHost, running, until
from tests.agent.models import (
    linear_spec,
    pixels,
    tflite_spec,
    with_model,
)

ROOT = Path(__file__).parents[2]
ZERO = json.dumps({"instances": (pixels(1) * 0).tolist()}).encode()
PREDICT = "/v1/models/digits:predict"
PROBE = "tests.agent.fork_probe"

T = TypeVar("T")


def with_zygote(story: Callable[[ZygoteProcess], Awaitable[T]], *engines: str) -> T:
    async def run() -> T:
        async with ZygoteProcess(engines, threads=1) as forker:
            return await story(forker)

    found = asyncio.run(run())
    assert psutil.Process().children() == []
    return found


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What two forks told, one after the other, and each one's parent and exit code."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(zygote_process, "FORKED", (PROBE,))

    async def story(forker: ZygoteProcess) -> list[dict[str, Any]]:
        found = []
        for _ in range(2):
            process = await spawn(PROBE, "probe", threads=1, zygote=forker)
            told = await process.receive()
            assert told is not None, process.last_words(await process.wait())
            seen = psutil.Process(process.pid)
            told |= {"parent": seen.ppid(), "name": seen.name()}
            told |= {"group": os.getpgid(process.pid) == process.pid}
            process.send({"end": True})
            found.append(told | {"code": await process.wait()})
        return found

    return with_zygote(story)


def test_a_fork_is_the_agents_own_child_in_all_that_matters(probed: list[dict[str, Any]]) -> None:
    for told in probed:
        assert told["parent"] == os.getpid()
        assert told["group"]
        assert told["threads"] == [1, 1]
        assert told["code"] == 3
        assert told["name"] == "edge-fork_probe"


def test_a_fork_holds_its_own_descriptors_and_no_others(probed: list[dict[str, Any]]) -> None:
    for told in probed:
        assert told["fds"][:3] == [0, 1, 2]
        assert len(told["fds"]) == 4  # and its control channel


def test_forks_draw_different_numbers(probed: list[dict[str, Any]]) -> None:
    one, two = (told["draws"] for told in probed)
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_limits_and_priority_of_one_fork_are_not_those_of_the_next(
    probed: list[dict[str, Any]],
) -> None:
    assert [told["cpu_limit"] for told in probed] == [resource.RLIM_INFINITY] * 2
    assert [told["nice"] for told in probed] == [psutil.Process().nice()] * 2


def test_a_workers_limits_do_not_leak_into_the_next_child(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.trial(linear_spec(tmp_path, 2), timeout_s=30))
        here.do(here.host.activate((linear_spec(tmp_path),)))
        assert here.host.zygote_pid is not None
        board = psutil.Process(here.host.zygote_pid)
        serving = psutil.Process(here.host.worker_pids["digits"])
        for which in (psutil.RLIMIT_CPU, psutil.RLIMIT_DATA):
            assert board.rlimit(which) == psutil.Process().rlimit(which)
            assert serving.rlimit(which) == psutil.Process().rlimit(which)
        assert board.rlimit(psutil.RLIMIT_FSIZE) == psutil.Process().rlimit(psutil.RLIMIT_FSIZE)
        assert serving.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert serving.nice() == psutil.Process().nice()


def test_it_has_one_thread_no_network_and_no_session(tmp_path: Path) -> None:
    with running() as here:
        both = (linear_spec(tmp_path), tflite_spec(tmp_path, slot="lite"))
        assert here.do(here.host.activate(both)) is None
        assert here.host.zygote_pid is not None
        process = psutil.Process(here.host.zygote_pid)
        assert process.num_threads() == 1
        assert process.net_connections("inet") == []
        assert process.environ()["ORT_DISABLE_TELEMETRY"] == "1"
        for pid in here.host.worker_pids.values():
            assert psutil.Process(pid).name() == "edge-worker"
            assert psutil.Process(pid).cmdline() == process.cmdline()  # forked, not started


def test_a_key_of_a_sealed_file_is_never_in_its_memory(tmp_path: Path) -> None:
    key = secrets.token_hex(32)

    async def story(forker: ZygoteProcess) -> tuple[bytes, bytes]:
        seal = FileSeal(key=key, bundle=Digest("0" * 64), path="v/model.onnx")
        spec = with_model(linear_spec(tmp_path), seal=seal)
        await try_model(spec, timeout_s=30, threads=1, data_mib=0, zygote=forker)
        assert forker.pid is not None
        return memory_of(forker.pid), memory_of(os.getpid())

    in_zygote, in_agent = with_zygote(story)
    assert key.encode() in in_agent  # the search finds what is there
    assert key.encode() not in in_zygote


def memory_of(pid: int) -> bytes:
    """All that is private and writable."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            if mode.startswith("rw") and "[v" not in line:
                start, end = (int(part, 16) for part in span.split("-"))
                memory.seek(start)
                found.append(memory.read(end - start))
    return b"".join(found)


def test_a_killed_zygote_costs_no_request_and_the_next_swap_works(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        with Load(here, PREDICT, ZERO) as load:
            for version in range(2, 6):
                load.more(100)
                before = here.host.zygote_pid
                assert before is not None
                os.kill(before, signal.SIGKILL)
                assert here.do(here.host.activate((linear_spec(tmp_path, version),))) is None
                until(lambda before=before: here.host.zygote_pid not in (None, before))
            load.more(100)
        assert load.failures == []
        assert here.stats("digits").restarts == 0
        assert {version for version, _ in load.answers} == set("12345")


def test_a_zygote_that_hangs_is_replaced_and_the_swap_works(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        before = here.host.zygote_pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        assert here.do(here.host.activate((linear_spec(tmp_path, 2),))) is None
        assert here.predict("digits", ZERO).headers["edgefleet-model-version"] == "2"
        until(lambda: here.host.zygote_pid not in (None, before))
        assert here.do(here.host.activate((linear_spec(tmp_path, 3),))) is None
        assert is_fork(here)


def is_fork(here: RunningHost) -> bool:
    """Whether the worker has the zygote's command line."""
    serving = psutil.Process(here.host.worker_pids["digits"])
    return any("zygote" in part for part in serving.cmdline())


def test_a_fork_that_nobody_was_told_of_ends_with_its_zygote(tmp_path: Path) -> None:
    """As when the zygote dies between the fork and its answer."""

    async def story(forker: ZygoteProcess) -> None:
        await forker.settled()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = await forker.fork(zygote.FORKED[0], {"control": theirs, "stderr": theirs})
            assert pid is not None
            assert forker.pid is not None
            os.setpgid(pid, forker.pid)  # as it was before the agent took charge of it
            os.kill(forker.pid, signal.SIGKILL)
            await asyncio.to_thread(until, lambda: not psutil.pid_exists(pid))

    with_zygote(story)


def test_thirty_swaps_grow_neither_its_memory_nor_its_descriptors(tmp_path: Path) -> None:
    with running() as here:
        for version in range(1, 34):
            assert here.do(here.host.activate((linear_spec(tmp_path, version),))) is None
            if version == 3:
                before = weight(here)
        assert is_fork(here)
        after = weight(here)
        assert after[0] == before[0]
        assert after[1] < before[1] + 256 * 1024


def weight(here: RunningHost) -> tuple[int, int]:
    """Its descriptors, and its memory that can be written to."""
    assert here.host.zygote_pid is not None
    process = psutil.Process(here.host.zygote_pid)
    return process.num_fds(), process.memory_full_info().data


def test_without_it_children_are_started_as_programs(tmp_path: Path) -> None:
    with running(zygote=False) as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        assert here.host.zygote_pid is None
        assert not is_fork(here)
        assert here.predict("digits", ZERO).status == 200


def test_a_runtime_that_starts_threads_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A package of that name which does so; the other runtime is forked with."""
    package = tmp_path / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "import threading\n"
        "class Interpreter: ...\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    info = tmp_path / "tflite_runtime-2.14.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}:{os.environ.get('PYTHONPATH', '')}")

    async def story(forker: ZygoteProcess) -> None:
        spec = linear_spec(tmp_path)
        await try_model(spec, timeout_s=30, threads=1, data_mib=0, zygote=forker)
        assert forker.pid is not None
        assert psutil.Process(forker.pid).num_threads() == 1

    with caplog.at_level(logging.WARNING):
        with_zygote(story, "tflite-runtime", "onnxruntime")
    assert "tflite-runtime starts threads, left out" in caplog.text


@pytest.mark.parametrize(
    ("machine", "is_64_bit", "number"),
    [
        ("x86_64", True, 56),
        ("aarch64", True, 220),
        ("aarch64", False, 120),  # a 32-bit system on a 64-bit kernel
        ("armv7l", False, 120),
        ("armv6l", False, 120),
    ],
)
def test_every_board_has_its_number_for_clone(machine: str, is_64_bit: bool, number: int) -> None:
    assert zygote.clone_number(machine, is_64_bit=is_64_bit) == number


def test_an_unknown_processor_is_not_forked_on() -> None:
    with pytest.raises(zygote.CannotFork, match="s390x"):
        zygote.clone_number("s390x", is_64_bit=True)
