"""The swap where memory is short: decided by a table, done with real processes under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil
import pytest

from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime import memory
from edgefleet_agent.runtime.room import (
    FILE_FACTOR,
    MARGIN_MIB,
    MIB,
    PROCESS_MIB,
    Appetite,
    SwapMode,
    choose_mode,
    worker_bound,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.order_policy import Policy
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Board
from tests.agent.bundles import make_bundle
from tests.agent.hosting import Load, RunningHost, running, until
from tests.agent.models import asked_spec, linear_spec, tflite_spec, with_model
from tests.agent.shelf import serve
from tests.contract.makers import order_of, target_of

BESIDE, IN_TURN = SwapMode.AVAILABILITY_PRESERVING, SwapMode.RESOURCE_PRESERVING
ZERO = json.dumps({"instances": np.zeros((1, 64)).tolist()}).encode()
PREDICT = "/v1/models/digits:predict"
FIXED = PROCESS_MIB + MARGIN_MIB


@pytest.mark.parametrize(
    ("appetites", "available_mib", "mode"),
    [
        ((Appetite(0, measured_mib=100),), FIXED + 100, BESIDE),
        ((Appetite(0, measured_mib=100),), FIXED + 99, IN_TURN),
        ((Appetite(0, limit_mib=100),), FIXED + 100, BESIDE),
        ((Appetite(0, limit_mib=100),), FIXED + 99, IN_TURN),
        ((Appetite(900 * MIB, limit_mib=100),), FIXED + 100, BESIDE),
        ((Appetite(900 * MIB, limit_mib=500, measured_mib=100),), FIXED + 100, BESIDE),
        ((Appetite(100 * MIB),), FIXED + FILE_FACTOR * 100, BESIDE),
        ((Appetite(100 * MIB),), FIXED + FILE_FACTOR * 100 - 1, IN_TURN),
        ((Appetite(0, 50), Appetite(0, 50)), FIXED + PROCESS_MIB + 100, BESIDE),
        ((Appetite(0, 50), Appetite(0, 50)), FIXED + PROCESS_MIB + 99, IN_TURN),
        ((Appetite(0),), 0, IN_TURN),
    ],
)
def test_the_mode_is_a_question_of_memory(
    appetites: tuple[Appetite, ...], available_mib: float, mode: SwapMode
) -> None:
    assert choose_mode(appetites, round(available_mib * MIB)) is mode


@pytest.mark.parametrize(
    ("limit", "configured", "mib"), [(0, 0, 0), (100, 0, 456), (100, 300, 300), (0, 300, 300)]
)
def test_a_worker_is_bounded_by_what_was_signed_or_by_what_the_operator_says(
    limit: int, configured: int, mib: int
) -> None:
    assert worker_bound(limit, configured) == mib * MIB


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "max"}, None),
        ({"memory.max": "1000", "memory.current": "900"}, 100),
        ({"memory.max": "1000", "memory.current": "1100"}, 0),
        ({"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "400"}, 600),
        ({}, None),
    ],
)
def test_what_a_control_group_has_left(
    tmp_path: Path, files: dict[str, str], left: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 0\n")
    found = memory.left_in(tmp_path)
    assert found == left if left is not None else found > 2**50


def test_page_cache_counts_as_available(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 500\nactive_file 200\n")
    assert memory.left_in(tmp_path) == 800


@pytest.fixture
def bounded() -> Iterator[Path]:
    """A real control group of 512 MiB, of whichever version bounds memory here; needs root."""
    bases = [
        group
        for group in memory.own_groups()
        if any((group / name).exists() for name in ("memory.limit_in_bytes", "memory.stat"))
    ]
    folder = bases[0] / f"edgefleet-{uuid4().hex}" if bases else Path("/nowhere")
    try:
        folder.mkdir()
        limit = next(n for n in ("memory.limit_in_bytes", "memory.max") if (folder / n).exists())
        (folder / limit).write_text(str(512 * MIB))
    except (OSError, StopIteration):
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip("no control group can be made that bounds memory")
    yield folder
    until(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


def test_a_process_in_a_control_group_knows_that_it_has_no_more(bounded: Path) -> None:
    program = (
        "from pathlib import Path; import os, sys\n"
        "Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from edgefleet_agent.runtime.memory import available_bytes\n"
        "print(available_bytes())\n"
    )

    async def ask() -> bytes:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(bounded)), stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0]

    found = int(asyncio.run(ask()))
    assert 300 * MIB < found <= 512 * MIB


# --- swaps ---------------------------------------------------------------------------------------


class Memory:
    """How much of it a test says that there is."""

    def __init__(self) -> None:
        self.available = 0

    def __call__(self) -> int:
        return self.available


def tight(**more: object) -> contextlib.AbstractContextManager[RunningHost]:
    """A host on a board that has no memory to spare."""
    return running(available=lambda: 0, **more)


def refused_or_answered(load: Load) -> None:
    """Every failure was a 503 that says when to come back."""
    assert [word for word in load.failures if not word.startswith("503 retry")] == []


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_without_room_the_old_one_leaves_first_and_requests_wait(
    tmp_path: Path, zygote: bool
) -> None:
    with tight(zygote=zygote) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, 1),))) is None
        assert not here.stats("digits").made_room  # there was nothing to make room
        with Load(here, PREDICT, ZERO) as load:
            for version in range(2, 5):
                load.more(100)
                most = most_workers(here, linear_spec(tmp_path, version))
                assert most == 1
                assert here.stats("digits").made_room
            load.more(100)
        refused_or_answered(load)
        assert all(answer == 1 + (int(v) + 1) % 2 for v, answer in load.answers)
        assert {v for v, _ in load.answers} == {"1", "2", "3", "4"}
        assert load.failures == []  # four clients fit into the queue, a load into the deadline


def most_workers(here: RunningHost, spec: ModelSpec) -> int:
    """Activate it; how many workers there were at most meanwhile."""
    done = asyncio.run_coroutine_threadsafe(here.host.activate((spec,)), here.loop)
    most = 0
    while not done.done():
        most = max(most, workers())
    assert done.result() is None
    return most


def workers() -> int:
    """Processes of ours that serve a model."""
    found = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            found += child.name() == "edge-worker"
    return found


def test_with_room_the_new_one_is_loaded_beside_the_old_one(tmp_path: Path) -> None:
    with running() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        assert most_workers(here, linear_spec(tmp_path, 2)) == 2
        assert not here.stats("digits").made_room


def test_what_a_full_queue_does_not_hold_is_told_to_come_back(tmp_path: Path) -> None:
    """A queue of one, four clients, and a model that takes its time to warm up."""
    with tight(queue=1) as here:
        slow = [asked_spec(tmp_path, "busy.onnx", 4_000, version=version) for version in (1, 2)]
        assert here.do(here.host.activate((slow[0],))) is None
        quick = json.dumps({"instances": [[1]]}).encode()
        with Load(here, "/v1/models/busy:predict", quick) as load:
            load.more(20)
            assert here.do(here.host.activate((slow[1],))) is None
            load.more(20)
        assert load.failures
        refused_or_answered(load)
        assert {v for v, _ in load.answers} == {"1", "2"}


def test_what_does_not_load_in_the_old_ones_place_brings_it_back(tmp_path: Path) -> None:
    with tight() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        bad = with_model(linear_spec(tmp_path, 2), sha256=Digest("0" * 64))
        with Load(here, PREDICT, ZERO) as load:
            load.more(100)
            failed = here.do(here.host.activate((bad,)))
            assert failed is not None
            assert failed.reason is Reason.ACTIVATION_FAILED
            assert "digest_mismatch" in failed.detail
            assert here.stats("digits").ready
            load.more(100)
        refused_or_answered(load)
        assert set(load.answers) == {("1", 1.0)}
        assert workers() == 1


def test_two_slots_make_room_together_or_not_at_all(tmp_path: Path) -> None:
    with tight() as here:
        old = (linear_spec(tmp_path, 1), tflite_spec(tmp_path, slot="lite"))
        assert here.do(here.host.activate(old)) is None
        bad = with_model(linear_spec(tmp_path, 2, slot="lite"), sha256=Digest("0" * 64))
        failed = here.do(here.host.activate((linear_spec(tmp_path, 2), bad)))
        assert isinstance(failed, Failed)
        for slot in ("digits", "lite"):
            assert here.predict(slot, ZERO).headers["edgefleet-model-version"] == "1"


def test_a_trial_without_room_has_the_slots_memory_and_gives_it_back(tmp_path: Path) -> None:
    with tight() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        before = here.host.worker_pids["digits"]
        with Load(here, PREDICT, ZERO) as load:
            load.more(100)
            report = here.do(here.host.trial(linear_spec(tmp_path, 2), timeout_s=60))
            assert isinstance(report, TrialReport)
            assert report.made_room
            assert here.stats("digits").ready
            load.more(100)
        refused_or_answered(load)
        assert set(load.answers) == {("1", 1.0)}
        assert here.host.worker_pids["digits"] != before
        assert here.stats("digits").restarts == 0


def test_a_trial_that_fails_or_hangs_without_room_gives_it_back_too(tmp_path: Path) -> None:
    with tight() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        bad = with_model(linear_spec(tmp_path, 2), sha256=Digest("0" * 64))
        hang = asked_spec(tmp_path, "busy.onnx", 10_000_000, slot="digits", version=3)
        for spec, reason in ((bad, Reason.DIGEST_MISMATCH), (hang, Reason.TRIAL_TIMEOUT)):
            failed = here.do(here.host.trial(spec, timeout_s=2))
            assert isinstance(failed, Failed)
            assert failed.reason is reason
            assert here.predict("digits", ZERO).json() == {"predictions": [[1.0] * 10]}


def test_what_a_trial_measured_counts_more_than_the_size_of_the_file(tmp_path: Path) -> None:
    """`greedy` is a small file that takes 60 MiB: only the trial knows."""
    board = Memory()
    with running(available=board) as here:
        one, two = (asked_spec(tmp_path, "greedy.onnx", 60, version=v) for v in (1, 2))
        board.available = (FIXED + 30) * MIB
        assert here.do(here.host.activate((one,))) is None
        report = here.do(here.host.trial(two, timeout_s=60))
        assert isinstance(report, TrialReport)
        assert not report.made_room  # a file of a few hundred bytes
        assert report.ram_mib > 40
        assert here.do(here.host.activate((two,))) is None
        assert here.stats("busy").made_room


@pytest.mark.parametrize("is_tight", [True, False])
def test_the_measurements_of_an_install_say_that_room_was_made(
    tmp_path: Path, is_tight: bool
) -> None:
    async def story() -> None:
        with serve() as shelf:
            board = Board(tmp_path / "pi", available=lambda: 0 if is_tight else 2**40)
            async with board:
                for version in (1, 2):
                    made = make_bundle(tmp_path, version)
                    shelf.put_bundle(made)
                    asked = Policy(probation_s=0)
                    order = order_of(
                        target_of(made), seq=version, sources=(shelf.url,), policy=asked
                    )
                    board.heard.measurements.clear()
                    assert await board.install(order) is Phase.COMMITTED
                    found = board.heard.measurements.get("resource_preserving", 0.0)
                    assert found == (is_tight and version == 2)  # the first had nobody to displace

    asyncio.run(story())


@pytest.mark.parametrize("what", ["activation", "trial"])
@pytest.mark.parametrize("after_ms", [0, 5, 20, 60, 150, 400])
def test_making_room_given_up_at_any_point_leaves_one_that_serves_and_no_stray(
    tmp_path: Path, what: str, after_ms: int
) -> None:
    with tight() as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        spec = linear_spec(tmp_path, 2)
        work = here.host.activate((spec,)) if what == "activation" else tried(here, spec)
        done = asyncio.run_coroutine_threadsafe(work, here.loop)
        with contextlib.suppress(TimeoutError):
            done.result(after_ms / 1000)
        done.cancel()
        here.do(here.host.deactivate("never-there"))  # it has its turn once that has ended
        until(lambda: all(stats.ready for stats in here.host.stats()) and workers() == 1)
        assert here.predict("digits", ZERO).status == 200
        assert here.do(here.host.activate((linear_spec(tmp_path, 3),))) is None  # nothing is stuck


async def tried(here: RunningHost, spec: ModelSpec) -> Failed | None:
    await here.host.trial(spec, timeout_s=9)
    return None


def test_a_worker_that_hangs_while_it_loads_is_given_up_and_the_old_one_serves(
    tmp_path: Path,
) -> None:
    """Its warm-up never ends; beside the old one, and in its place."""
    for available in (2**40, 0):
        with running(available=lambda: available, ready_s=1.5) as here:  # noqa: B023 # called in this turn
            folder = tmp_path / str(available)
            assert here.do(here.host.activate((linear_spec(folder, 1),))) is None
            hang = asked_spec(folder, "busy.onnx", 10_000_000, slot="digits", version=2)
            failed = here.do(here.host.activate((hang,)))
            assert failed is not None
            assert "not ready within 1.5 s" in failed.detail
            assert here.predict("digits", ZERO).headers["edgefleet-model-version"] == "1"
            assert workers() == 1
            assert os.getpid() != here.host.worker_pids["digits"]
