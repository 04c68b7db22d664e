"""Trials in real processes: every way in which a model can fail one, and what is measured."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.trial import judge
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_contract.bundle import Digest, Limits, TensorSpec, sha256
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import until
from tests.agent.models import (
    X,
    Y,
    asked_spec,
    golden_path,
    linear,
    linear_spec,
    make_spec,
    model_path,
    pixels,
    stored,
    tflite_spec,
    with_file,
    with_golden,
    with_model,
)


@pytest.fixture(params=["forked", "started"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial here is done both ways."""
    monkeypatch.setitem(WAY, "is_forked", request.param == "forked")


WAY = {"is_forked": True}


async def try_it(spec: ModelSpec, *, timeout_s: float, data_mib: int) -> TrialReport | Failed:
    if not WAY["is_forked"]:
        return await try_model(spec, timeout_s=timeout_s, threads=1, data_mib=data_mib)
    async with ZygoteProcess(threads=1) as zygote:
        return await try_model(
            spec, timeout_s=timeout_s, threads=1, data_mib=data_mib, zygote=zygote
        )


def tried(spec: ModelSpec, *, timeout_s: float = 30, data_mib: int = 0) -> TrialReport | Failed:
    others = set(psutil.Process().children())  # of tests before that ended early
    outcome = asyncio.run(try_it(spec, timeout_s=timeout_s, data_mib=data_mib))
    assert set(psutil.Process().children()) <= others  # ended and reaped, whatever happened
    return outcome


def refused(spec: ModelSpec, *, timeout_s: float = 30, data_mib: int = 0) -> Failed:
    outcome = tried(spec, timeout_s=timeout_s, data_mib=data_mib)
    assert isinstance(outcome, Failed)
    return outcome


@pytest.mark.parametrize("make", [linear_spec, tflite_spec])
def test_a_good_model_passes_and_is_measured(
    tmp_path: Path, make: Callable[[Path], ModelSpec]
) -> None:
    report = tried(make(tmp_path))
    assert isinstance(report, TrialReport)
    assert (report.vectors, report.max_abs_err) == (3, 0.0)
    assert 0 < report.p50_us <= report.p95_us
    assert 0 < report.load_ms < 10_000
    assert 0 < report.ram_mib < 100


def test_an_int8_model_is_fed_as_it_declares(tmp_path: Path) -> None:
    x = (np.arange(128).reshape(2, 64) % 3).astype(np.int8)
    expected = np.clip(linear(x.astype(np.float32)), -128, 127).astype(np.int8)
    inputs = {TensorSpec("x", "int8", (-1, 64)): x}
    outputs = {TensorSpec("y", "int8", (-1, 10)): expected}
    assert isinstance(
        tried(make_spec(tmp_path, "linear1_int8.tflite", inputs, outputs)), TrialReport
    )


def test_text_passes_and_differs_when_it_differs(tmp_path: Path) -> None:
    words = np.array(["cat", "dog", "emu"])
    outputs = {
        TensorSpec("class", "int64", (-1,)): np.array([1, 2, -1]),
        TensorSpec("echo", "string", (-1,)): words,
    }
    spec = make_spec(tmp_path, "text.onnx", {TensorSpec("word", "string", (-1,)): words}, outputs)
    assert isinstance(tried(spec), TrialReport)
    arrays = dict(np.load(golden_path(spec))) | {"output.1": np.array(["cat", "dog", "gnu"])}
    assert refused(with_golden(spec, arrays)).reason is Reason.GOLDEN_MISMATCH


def test_a_fixed_batch_and_stacked_vectors_pass(tmp_path: Path) -> None:
    x = pixels(4)
    fixed_x, fixed_y = TensorSpec("x", "float32", (1, 64)), TensorSpec("y", "float32", (1, 10))
    spec = make_spec(tmp_path, "fixed.onnx", {fixed_x: x}, {fixed_y: linear(x, 0)})
    report = tried(spec)
    assert isinstance(report, TrialReport)
    assert report.vectors == 4
    stacked = {"input.0": x[:, None], "output.0": linear(x, 0)[:, None]}
    assert isinstance(tried(with_golden(spec, stacked)), TrialReport)


def test_outputs_beyond_the_tolerance_are_a_golden_mismatch(tmp_path: Path) -> None:
    spec = linear_spec(tmp_path)
    x = pixels(2)
    wrong = linear(x)
    wrong[1, 3] += 0.25
    spec = with_golden(spec, {"input.0": x, "output.0": wrong})
    failed = refused(spec)
    assert failed == Failed(Reason.GOLDEN_MISMATCH, "an output differs by 0.25, allowed are 0")
    tolerant = replace(spec, variant=replace(spec.variant, max_abs_err_e6=250_000))
    report = tried(tolerant)
    assert isinstance(report, TrialReport)
    assert report.max_abs_err == 0.25


def test_other_bytes_than_the_signed_ones_are_a_digest_mismatch(tmp_path: Path) -> None:
    spec = linear_spec(tmp_path)
    other = Digest("0" * 64)
    assert refused(with_model(spec, sha256=other)).reason is Reason.DIGEST_MISMATCH
    for path in (model_path(spec), golden_path(spec)):
        good = path.read_bytes()
        raw = bytearray(good)
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        assert refused(spec).reason is Reason.DIGEST_MISMATCH
        path.write_bytes(good)


@pytest.mark.parametrize(
    ("file", "output", "says"),
    [
        ("external.onnx", Y, "keeps its data in another file"),
        ("external_branch.onnx", Y, "keeps its data in another file"),
        ("zipmap.onnx", Y, "only tensors are served"),
        (
            "log.onnx",
            Y,
            "input 'x' is declared as float32 of rank 2, the model has float32 of rank 1",
        ),
        ("linear1.onnx", TensorSpec("z", "float32", (-1, 10)), "the model has an output 'y'"),
        ("linear1.onnx", TensorSpec("y", "int8", (-1, 10)), "declared as int8 of rank 2"),
    ],
)
def test_a_model_that_is_not_as_declared_is_not_loaded(
    tmp_path: Path, file: str, output: TensorSpec, says: str
) -> None:
    # weights.bin is there and right: it is refused for being outside the signature
    (tmp_path / "digits-1").mkdir()
    x = pixels(2)
    golden = linear(x).astype(output.dtype)
    spec = make_spec(tmp_path, file, {X: x}, {output: golden})
    model_path(spec).with_name("weights.bin").write_bytes(bytes(2560))
    failed = refused(spec)
    assert failed.reason is Reason.LOAD_FAILED
    assert says in failed.detail or "is not in the model" in failed.detail


@pytest.mark.parametrize("make", [linear_spec, tflite_spec])
def test_garbage_is_not_loaded_whoever_signed_it(
    tmp_path: Path, make: Callable[[Path], ModelSpec]
) -> None:
    spec = make(tmp_path)
    for raw in (b"", b"not a model at all", model_path(spec).read_bytes()[:700]):
        model_path(spec).write_bytes(raw)
        assert refused(with_model(spec, sha256=sha256(raw))).reason in (
            Reason.LOAD_FAILED,
            Reason.TRIAL_CRASHED,  # a runtime may die over it: that is what the trial is for
        )


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"input.0": pixels(2)},
        {"input.0": pixels(2), "output.0": linear(pixels(3))},
        {"input.0": pixels(2).astype(np.float64), "output.0": linear(pixels(2))},
        {"input.0": pixels(2)[:, :63], "output.0": linear(pixels(2))},
        {"input.0": pixels(0), "output.0": linear(pixels(0))},
        {"input.0": pixels(2), "output.0": linear(pixels(2)), "more": pixels(2)},
    ],
)
def test_golden_vectors_that_do_not_fit_are_malformed(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    assert refused(with_golden(linear_spec(tmp_path), arrays)).reason is Reason.MALFORMED


def test_golden_vectors_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    spec = linear_spec(tmp_path)
    arrays = {"input.0": np.array([Bomb()]), "output.0": pixels(1)}
    assert refused(with_golden(spec, arrays)).reason is Reason.MALFORMED
    golden_path(spec).write_bytes(b"PK\x03\x04 not a zip")
    spec = with_file(spec, spec.variant.golden, stored(golden_path(spec)))
    assert refused(spec).reason is Reason.MALFORMED
    assert not (tmp_path / "ran").exists()


def test_a_hang_ends_at_the_timeout(tmp_path: Path) -> None:
    failed = refused(asked_spec(tmp_path, "busy.onnx", 10_000_000), timeout_s=2)
    assert failed.reason is Reason.TRIAL_TIMEOUT
    assert "within 2 s" in failed.detail


def begun_trial() -> psutil.Process:
    def begun() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if child.nice() == 19]

    until(lambda: bool(begun()))
    (child,) = begun()
    return child


def test_a_trial_that_is_killed_says_by_what(tmp_path: Path) -> None:
    async def kill_it() -> TrialReport | Failed:
        spec = asked_spec(tmp_path, "busy.onnx", 10_000_000)
        trial = asyncio.create_task(try_it(spec, timeout_s=30, data_mib=0))
        child = await asyncio.to_thread(begun_trial)
        child.send_signal(signal.SIGSEGV)
        return await trial

    failed = asyncio.run(kill_it())
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.TRIAL_CRASHED
    assert "killed by SIGSEGV" in failed.detail


def test_a_trial_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    async def give_up() -> None:
        spec = asked_spec(tmp_path, "busy.onnx", 10_000_000)
        async with asyncio.timeout(1):
            await try_it(spec, timeout_s=30, data_mib=0)

    others = set(psutil.Process().children())
    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert set(psutil.Process().children()) <= others


def test_memory_beyond_the_signed_limit_is_found(tmp_path: Path) -> None:
    spec = asked_spec(tmp_path, "greedy.onnx", 60, limits=Limits(ram_mib=30))
    failed = refused(spec)
    assert failed.reason is Reason.MEMORY_EXCEEDED
    assert "limit 30 MiB" in failed.detail
    report = tried(replace(spec, limits=Limits(ram_mib=1000)))
    assert isinstance(report, TrialReport)
    assert 60 < report.ram_mib < 200


def test_memory_beyond_what_a_trial_has_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    failed = refused(asked_spec(tmp_path, "greedy.onnx", 3000), data_mib=600)
    assert failed.reason is Reason.MEMORY_EXCEEDED
    assert "600 MiB" in failed.detail


def test_latency_beyond_the_signed_limit_is_found(tmp_path: Path) -> None:
    failed = refused(asked_spec(tmp_path, "busy.onnx", 5, limits=Limits(p95_us=10)))
    assert failed.reason is Reason.LATENCY_EXCEEDED
    assert "p95 of one inference" in failed.detail


def test_an_engine_that_is_not_here_does_not_load(tmp_path: Path) -> None:
    failed = refused(replace(linear_spec(tmp_path), engine="abacus"))
    assert failed == Failed(Reason.LOAD_FAILED, "no engine is called 'abacus'")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(), None),
        (Limits(ram_mib=10, load_ms=20, p95_us=30), None),
        (Limits(ram_mib=9), Reason.MEMORY_EXCEEDED),
        (Limits(load_ms=19), Reason.LATENCY_EXCEEDED),
        (Limits(p95_us=29), Reason.LATENCY_EXCEEDED),
    ],
)
def test_zero_is_not_limited_and_a_limit_may_be_met(limits: Limits, reason: Reason | None) -> None:
    report = TrialReport(
        vectors=1, max_abs_err=0.0, load_ms=20.0, p50_us=25.0, p95_us=30.0, ram_mib=10.0
    )
    failed = judge(report, limits)
    assert (failed.reason if failed else None) is reason
