"""`edge-agent measure`: real models in real processes, and every way in which one can fail it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgefleet_agent.adapters.board_facts import is_emulated, throttling
from edgefleet_contract.measuring import ANY_ANSWER_E6, MeasureReport, parse_report
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import until
from tests.agent.measuring import job_of, specs, tar_of
from tests.agent.models import asked_spec, linear_spec

COMMAND = (sys.executable, "-m", "edgefleet_agent", "measure")


def measured(folder: Path, job: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    state = folder / "state"
    state.mkdir(exist_ok=True)
    return subprocess.run(
        [*COMMAND, job, "--state", state],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def report_of(done: subprocess.CompletedProcess[bytes]) -> MeasureReport:
    assert done.returncode == 0, done.stderr.decode()
    return parse_report(done.stdout, what="report")


def test_what_fails_is_told_and_the_rest_is_measured(tmp_path: Path) -> None:
    good, other = linear_spec(tmp_path), linear_spec(tmp_path, 2)  # which answers 1 more
    lax = replace(good.variant, max_abs_err_e6=ANY_ANSWER_E6)
    crossed = good.files | {good.variant.model: other.files[other.variant.model]}
    off = {"off": replace(good, variant=lax, files=crossed)}
    job, places = job_of(specs(tmp_path) | off, memory_mib=600)
    done = measured(tmp_path, "-", tar_of(job, places))
    report = report_of(done)
    found = {one.name: one for one in report.results}
    assert found["crash"].reason is Reason.TRIAL_CRASHED
    assert "SIGSEGV" in found["crash"].detail
    assert found["greedy"].reason in (Reason.MEMORY_EXCEEDED, Reason.GOLDEN_MISMATCH)
    assert found["elsewhere"].reason is Reason.WRONG_HARDWARE
    for name, engine in (("good", "onnxruntime"), ("tflite", "litert")):
        figures = found[name].figures
        assert figures is not None
        assert figures.engine == engine
        assert 0 < figures.open_ms <= figures.load_ms
        assert 0 < figures.p50_us <= figures.p95_us <= figures.p99_us
        assert (figures.runs + figures.disturbed, figures.vectors) == (10, 3)
    unfinished = found["off"].figures
    assert unfinished is not None
    assert unfinished.max_abs_err == pytest.approx(1.0)
    board = report.board
    assert board.machine == os.uname().machine
    assert set(board.runtimes) >= {"onnxruntime", "litert"}
    assert board.cpus == os.cpu_count()
    assert "round 1 of 1, crash: trial_crashed" in done.stderr.decode()
    left = [path.name for path in tmp_path.glob("edge-agent-*")]
    assert left == []


def test_one_that_hangs_has_its_time_and_rounds_are_taken_in_turns(tmp_path: Path) -> None:
    found = {"hang": asked_spec(tmp_path, "busy.onnx", 10_000_000), "good": linear_spec(tmp_path)}
    job, places = job_of(found, repeat=2, timeout_s=2)
    report = report_of(measured(tmp_path, "-", tar_of(job, places)))
    order = [(one.round, one.name) for one in report.results]
    assert order == [(0, "hang"), (0, "good"), (1, "hang"), (1, "good")]
    ends = {one.reason for one in report.results if one.name == "hang"}
    assert ends == {Reason.TRIAL_TIMEOUT}  # a busy board may not have time for the other either


def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    job, places = job_of({"good": linear_spec(tmp_path)})
    whole = tar_of(job, places)
    done = measured(tmp_path, "-", whole[: len(whole) // 2])
    assert done.returncode == 3, done.stderr
    assert b"error: job: " in done.stderr
    assert done.stdout == b""


def test_a_desk_that_hangs_up_ends_it_and_nothing_is_left(tmp_path: Path) -> None:
    job, places = job_of({"hang": asked_spec(tmp_path, "busy.onnx", 10_000_000)}, timeout_s=600)
    (tmp_path / "state").mkdir()
    process = subprocess.Popen(
        [*COMMAND, "-", "--state", tmp_path / "state"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(tar_of(job, places))
    process.stdin.close()
    found: list[psutil.Process] = []  # another child tells of the board, and is gone at once

    def has_begun() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children()
            found.extend(child for child in children if child.name() == "edge-trial")
        return bool(found)

    until(has_begun)
    trial = found[0]
    process.stdout.close()
    process.stderr.close()
    assert process.wait(30) != 0
    assert not trial.is_running()
    assert list(tmp_path.glob("edge-agent-*")) == []


def test_the_firmwares_flags_in_words() -> None:
    assert throttling("throttled=0x50005") == (
        *("under-voltage", "throttled", "under-voltage before", "throttled before"),
    )
    assert throttling("0") == ()
    assert throttling("") is None


@pytest.mark.parametrize(
    ("kernel", "machine", "emulated"),
    [
        ("x86_64", "aarch64", True),
        ("aarch64", "aarch64", False),
        ("aarch64", "armv7l", False),
        ("x86_64", "i686", False),
        ("", "aarch64", False),
    ],
)
def test_an_emulated_processor_is_known_by_its_kernel(
    kernel: str, machine: str, emulated: bool
) -> None:
    assert is_emulated(kernel, machine) is emulated
