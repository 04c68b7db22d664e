"""TFLite delegates without their hardware: a real shared library, compiled here, behind LiteRT."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.chain import Accelerators, AcceleratorSetup
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.runtime.zygote_process import ZygoteProcess
from edgefleet_agent.serving.config import ModelConfig
from tests.agent.hosting import running
from tests.agent.models import X, Y, linear, linear_spec, make_spec, pixels, tflite_spec

SOURCE = Path(__file__).with_name("delegate.c")

pytest.importorskip("ai_edge_litert.interpreter")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a delegate with")
    if sys.maxsize < 2**32:
        pytest.skip("the delegate's declarations are those of 64-bit boards")
    made = tmp_path_factory.mktemp("delegate") / "libones.so"
    subprocess.run(
        [
            compiler,
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            SOURCE,
            "-o",
            made,
        ],
        check=True,
    )
    return str(made)


def zero_spec(folder: Path) -> ModelSpec:
    """The linear model, whose golden vector is a zero: the right answer to it is 1."""
    x = np.zeros((1, 64), np.float32)
    return make_spec(folder, "linear1.tflite", {X: x}, {Y: linear(x)})


def tried(spec: ModelSpec, means: Accelerators) -> TrialReport:
    async def story() -> TrialReport | Failed:
        async with ZygoteProcess(threads=1) as zygote:
            return await try_model(
                spec, timeout_s=60, threads=1, data_mib=0, accelerators=means, zygote=zygote
            )

    report = asyncio.run(story())
    assert isinstance(report, TrialReport), report
    return report


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "it takes none of the model's operators"),
        ({"fail": "create"}, "no device of this kind"),
        ({"fail": "prepare"}, "delegate application failure"),
    ],
)
def test_a_delegate_that_does_not_take_the_model_is_passed_over(
    tmp_path: Path, library: str, options: dict[str, str], says: str
) -> None:
    means = Accelerators(("ones",), {"ones": AcceleratorSetup(library, options)})
    report = tried(tflite_spec(tmp_path), means)
    assert report.accelerator == "xnnpack"
    (line,) = report.passed_over
    assert line.startswith("ones: ")
    assert says in line


def test_what_is_no_delegate_is_passed_over(tmp_path: Path) -> None:
    libc = next(m.path for m in psutil.Process().memory_maps() if "libc.so" in m.path)
    setup = {
        "libc": AcceleratorSetup(libc),
        "missing": AcceleratorSetup("libnot-there.so.7"),
        "text": AcceleratorSetup(str(Path(__file__))),
    }
    report = tried(tflite_spec(tmp_path), Accelerators(("edgetpu", *setup, "cpu"), setup))
    assert report.accelerator == "cpu"
    found = dict(line.split(": ", 1) for line in report.passed_over)
    assert "tflite_plugin_create_delegate" in found["libc"]
    assert "cannot open shared object file" in found["missing"]
    assert "invalid ELF header" in found["text"]
    assert "libedgetpu.so.1" in found["edgetpu"]


def test_a_delegate_serves_what_it_answers_rightly(tmp_path: Path, library: str) -> None:
    means = Accelerators(("ones",), {"ones": AcceleratorSetup(library, {"take": "all"})})
    with running(accelerators=means) as here:
        spec = zero_spec(tmp_path)
        report = here.do(here.host.trial(spec, timeout_s=60))
        assert isinstance(report, TrialReport), report
        assert (report.accelerator, report.passed_over) == ("ones", ())
        assert here.do(here.host.activate((spec,))) is None
        assert here.stats("digits").accelerator == "ones"
        assert here.ask("GET", "/v2/models/digits").json()["platform"] == "litert_tflite_ones"
        # It is the delegate that answers: the model would give something else.
        answer = here.predict("digits", {"instances": pixels(2)[1:].tolist()}).json()
        assert answer == {"predictions": [[1.0] * 10]}
        assert not np.array_equal(linear(pixels(2)[1:]), np.ones((1, 10)))


def test_a_delegate_that_answers_wrongly_does_not_serve(tmp_path: Path, library: str) -> None:
    x = pixels(1) + 1
    spec = make_spec(tmp_path, "linear1.tflite", {X: x}, {Y: linear(x)})
    means = Accelerators(("ones",), {"ones": AcceleratorSetup(library, {"take": "all"})})
    report = tried(spec, means)
    assert (report.accelerator, report.max_abs_err) == ("xnnpack", 0.0)
    assert report.passed_over[0].startswith("ones: an output differs by ")


@pytest.mark.parametrize(("named", "threads"), [("xnnpack", 1), ("cpu", 1), ("xnnpack", 3)])
def test_tflite_runs_with_and_without_xnnpack(tmp_path: Path, named: str, threads: int) -> None:
    with running(threads=threads, accelerators=Accelerators((named,))) as here:
        assert here.do(here.host.activate((tflite_spec(tmp_path),))) is None
        assert (here.stats("digits").accelerator, here.stats("digits").passed_over) == (named, ())
        x = pixels(2)
        answer = here.predict("digits", {"instances": x.tolist()}).json()
        assert answer == {"predictions": linear(x).tolist()}


def test_threads_of_a_slot_reach_both_runtimes(tmp_path: Path) -> None:
    models = {"three": ModelConfig(threads=3), "three-lite": ModelConfig(threads=3)}
    with running(models=models, threads=1) as here:
        specs = [
            *(linear_spec(tmp_path, slot="one"), linear_spec(tmp_path, slot="three")),
            *(tflite_spec(tmp_path, slot="one-lite"), tflite_spec(tmp_path, slot="three-lite")),
        ]
        assert here.do(here.host.activate(tuple(specs))) is None
        found = {s: psutil.Process(p).num_threads() for s, p in here.host.worker_pids.items()}
    assert found == {"one": 1, "three": 3, "one-lite": 1, "three-lite": 3}
