"""Accelerators of other packages, end to end: real packages, trials, workers and swaps."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import psutil
import pytest

from edgefleet_agent.ports import Failed, TrialReport
from edgefleet_agent.runtime.chain import Accelerators, AcceleratorSetup
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import running, until
from tests.agent.models import X, Y, linear, linear_spec, make_spec, pixels
from tests.agent.plug_ins import install

PICKY = {"picky": AcceleratorSetup(options={"say": "not mine"})}


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", monkeypatch)


def tried(folder: Path, *named: str, forked: bool = True) -> TrialReport | Failed:
    means = Accelerators(named, PICKY)

    async def story() -> TrialReport | Failed:
        spec = linear_spec(folder)
        if not forked:
            return await try_model(spec, timeout_s=60, threads=1, data_mib=0, accelerators=means)
        async with ZygoteProcess(threads=1) as zygote:
            return await try_model(
                spec, timeout_s=60, threads=1, data_mib=0, accelerators=means, zygote=zygote
            )

    return asyncio.run(story())


@pytest.mark.parametrize("forked", [True, False], ids=["forked", "started"])
def test_a_plug_in_is_tried_and_measured(tmp_path: Path, forked: bool) -> None:
    report = tried(tmp_path, "good", "cpu", forked=forked)
    assert isinstance(report, TrialReport)
    assert (report.accelerator, report.passed_over) == ("good", ())
    assert (report.vectors, report.max_abs_err) == (3, 0.0)


@pytest.mark.parametrize("forked", [True, False], ids=["forked", "started"])
def test_whatever_cannot_be_used_is_passed_over_with_a_line_that_says_why(
    tmp_path: Path, forked: bool
) -> None:
    why = {
        "abacus": "neither onnxruntime nor a plug-in has it",
        "absent": "there is no /dev/abacus0",
        "lite": "takes tflite, not onnx",
        "breaks": "OSError: libabacus.so.4: cannot open shared object file",
        "leaves": "SystemExit: 3",
        "picky": "ValueError: operator Add: not mine",
        "nowhere": "AttributeError: module 'abacus' has no attribute 'NotThere'",
        "unimportable": "ModuleNotFoundError: No module named 'missing_driver'",
        "azure": "neither onnxruntime nor a plug-in has it",  # it would send inputs away
        "edgetpu": "neither onnxruntime nor a plug-in has it",
        "wrong": "an output differs by ",
        "fails": "an inference failed: fails: 'the device went away'",
    }
    report = tried(tmp_path, *why, forked=forked)
    assert isinstance(report, TrialReport)
    assert report.accelerator == "cpu"
    found = dict(line.split(": ", 1) for line in report.passed_over)
    assert list(found) == list(why)
    assert {name: said for name, said in found.items() if not said.startswith(why[name])} == {}


def test_a_model_that_is_wrong_everywhere_is_refused_for_what_the_processor_gave(
    tmp_path: Path,
) -> None:
    x = pixels(2)
    spec = make_spec(tmp_path, "linear1.onnx", {X: x}, {Y: linear(x) + 1})
    failed = asyncio.run(
        try_model(
            spec, timeout_s=60, threads=1, data_mib=0, accelerators=Accelerators(("good", "absent"))
        )
    )
    assert failed == Failed(
        Reason.GOLDEN_MISMATCH,
        "cpu: an output differs by 1, allowed are 0; good: an output differs by 1, allowed are 0;"
        " absent: there is no /dev/abacus0",
    )


def test_a_plug_in_that_crashes_costs_its_trial_and_nothing_else(tmp_path: Path) -> None:
    with running(models={"digits": ModelConfig(accelerators=("crashes",))}) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, slot="other"),))) is None
        failed = here.do(here.host.trial(linear_spec(tmp_path, 2), timeout_s=60))
        assert isinstance(failed, Failed)
        assert (failed.reason, "SIGABRT" in failed.detail) == (Reason.TRIAL_CRASHED, True)
        assert here.predict("other", {"instances": pixels(1).tolist()}).status == 200


@pytest.mark.parametrize("zygote", [True, False], ids=["forked", "started"])
def test_trial_and_worker_take_the_same_and_only_they_import_it(
    tmp_path: Path, zygote: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with running(zygote=zygote, accelerators=Accelerators(("absent", "wrong", "good"))) as here:
        spec = linear_spec(tmp_path)
        report = here.do(here.host.trial(spec, timeout_s=60))
        assert isinstance(report, TrialReport)
        with caplog.at_level(logging.INFO, "edgefleet_agent"):
            assert here.do(here.host.activate((spec,))) is None
        stats = here.stats("digits")
        assert stats.accelerator == report.accelerator == "good"
        assert stats.passed_over == report.passed_over
        assert [line.partition(":")[0] for line in stats.passed_over] == ["absent", "wrong"]
        assert "passed over absent: there is no /dev/abacus0" in caplog.text
        assert " on good (pid " in caplog.text
        x = pixels(2)
        assert here.predict("digits", {"instances": x.tolist()}).json() == {
            "predictions": linear(x).tolist()
        }
        metadata = here.ask("GET", "/v2/models/digits").json()
        assert metadata["platform"] == "onnxruntime_onnx_good"
        # The plug-in starts a thread as it is imported.
        worker = psutil.Process(here.host.worker_pids["digits"])
        assert worker.num_threads() == 2
        for pid in filter(None, (here.host.front_pid, here.host.zygote_pid)):
            assert psutil.Process(pid).num_threads() == 1
        # What was said is not said again by the one that replaces it.
        caplog.clear()
        worker.kill()
        until(lambda: here.stats("digits").restarts == 1 and here.stats("digits").ready)
        assert here.stats("digits").accelerator == "good"
        assert "passed over" not in caplog.text


def test_a_worker_without_a_trial_checks_what_it_runs_on(tmp_path: Path) -> None:
    """As after a reboot: what is plugged in may be another accelerator than the trial had."""
    with running(accelerators=Accelerators(("wrong", "good"))) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        stats = here.stats("digits")
        assert stats.accelerator == "good"
        assert stats.passed_over[0].startswith("wrong: an output differs by ")


def test_a_plug_in_that_fails_later_fails_the_request_and_not_the_worker(tmp_path: Path) -> None:
    with running(accelerators=Accelerators(("fails",))) as here:
        x = pixels(1)
        spec = make_spec(tmp_path, "linear1.onnx", {X: x}, {Y: linear(x)})
        assert here.do(here.host.activate((spec,))) is None
        pid = here.host.worker_pids["digits"]
        answer = here.predict("digits", {"instances": pixels(2).tolist()})
        assert (answer.status, answer.json()["error"]) == (500, "fails: 'the device went away'")
        assert here.predict("digits", {"instances": x.tolist()}).status == 200
        assert here.host.worker_pids["digits"] == pid


def test_an_accelerator_that_one_process_can_hold_goes_over_to_the_new_version(
    tmp_path: Path,
) -> None:
    device = tmp_path / "device"
    device.touch()
    means = Accelerators(
        ("exclusive",), {"exclusive": AcceleratorSetup(options={"device": str(device)})}
    )
    with running(accelerators=means) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, 1),))) is None
        assert here.stats("digits").accelerator == "exclusive"
        report = here.do(here.host.trial(linear_spec(tmp_path, 2), timeout_s=60))
        assert isinstance(report, TrialReport)
        assert report.accelerator == "cpu"
        assert report.passed_over == ("exclusive: RuntimeError: another process has the device",)
        assert here.do(here.host.activate((linear_spec(tmp_path, 2),))) is None
        stats = here.stats("digits")
        assert (stats.version, stats.accelerator, stats.passed_over) == (2, "exclusive", ())
        answer = here.predict("digits", {"instances": pixels(1).tolist()})
        assert answer.headers["edgefleet-model-version"] == "2"
        assert here.ask("GET", "/v2/models/digits").json()["platform"].endswith("_exclusive")
        assert len(here.host.worker_pids) == 1


def test_threads_beyond_the_cores_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cores = len(os.sched_getaffinity(0))
    with running(models={"digits": ModelConfig(threads=cores)}, threads=1) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path, slot="other"),))) is None
        assert "threads" not in caplog.text
        spec = linear_spec(tmp_path)
        assert here.do(here.host.activate((spec,))) is None
        assert f"models have {cores + 1} threads (digits {cores}, other 1)" in caplog.text
        caplog.clear()
        assert here.do(here.host.activate((linear_spec(tmp_path, 2),))) is None
        assert "threads" not in caplog.text
