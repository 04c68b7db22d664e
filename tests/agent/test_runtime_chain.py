"""Which accelerators are tried in which order, and what is said of it. No process, no runtime."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet_agent import config as configs
from edgefleet_agent.ports import SlotStats
from edgefleet_agent.runtime.chain import Accelerators, AcceleratorSetup, platform
from edgefleet_agent.runtime.loading import job_for, parse_job, render_job
from edgefleet_agent.runtime.threads import excess
from edgefleet_agent.telemetry import where_it_runs
from edgefleet_contract.errors import OperatorError
from tests.agent.models import linear_spec


@pytest.mark.parametrize(
    ("engine", "named", "chain"),
    [
        ("onnxruntime", (), ("cpu",)),
        ("litert", (), ("xnnpack",)),
        ("tflite-runtime", (), ("xnnpack",)),
        ("onnxruntime", ("hailo",), ("hailo", "cpu")),
        ("litert", ("edgetpu",), ("edgetpu", "xnnpack", "cpu")),
        ("litert", ("xnnpack",), ("xnnpack", "cpu")),
        ("litert", ("cpu",), ("cpu",)),
        ("litert", ("edgetpu", "cpu", "npu"), ("edgetpu", "cpu")),
        ("onnxruntime", ("qnn", "qnn", "xnnpack"), ("qnn", "xnnpack", "cpu")),
    ],
)
def test_the_processor_is_always_the_last(
    engine: str, named: tuple[str, ...], chain: tuple[str, ...]
) -> None:
    assert Accelerators(named).chain(engine) == chain


def test_what_is_named_is_checked_until_it_has_passed() -> None:
    assert Accelerators().is_proven("cpu")  # there is no choice: it is what the trial ran on
    assert not Accelerators(("edgetpu",)).is_proven("edgetpu")
    assert not Accelerators(("edgetpu",), proven="edgetpu").is_proven("xnnpack")
    assert Accelerators(("edgetpu",), proven="edgetpu").is_proven("edgetpu")


def test_a_job_tells_a_child_all_of_it(tmp_path: Path) -> None:
    means = Accelerators(("npu",), {"npu": AcceleratorSetup("/lib/npu.so", {"a": "1"})}, "cpu")
    job = job_for(linear_spec(tmp_path), threads=2, accelerators=means)
    assert parse_job(render_job(job)) == job


def test_the_configuration_names_them_for_all_slots_or_for_one(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        '[runtime]\naccelerators = ["npu", "xnnpack"]\n'
        '[runtime.setup.npu]\nlibrary = "/usr/lib/libnpu.so"\noptions = { cache = "off" }\n'
        '[serving.models.digits]\naccelerators = ["cpu"]\n'
    )
    config = configs.load(None, tmp_path)
    npu = AcceleratorSetup("/usr/lib/libnpu.so", {"cache": "off"})
    assert config.runtime.on() == Accelerators(("npu", "xnnpack"), {"npu": npu})
    assert config.serving.model("digits").accelerators == ("cpu",)
    assert config.serving.model("other").accelerators == ()


def test_a_library_cannot_be_called_as_the_processor_is(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[runtime.setup.cpu]\nlibrary = "libnpu.so"\n')
    with pytest.raises(OperatorError, match=r"runtime\.setup\.cpu has a library"):
        configs.load(None, tmp_path)


def test_a_platform_names_what_is_not_the_processor() -> None:
    assert platform("litert", "tflite", "xnnpack") == "litert_tflite"
    assert platform("onnxruntime", "onnx", "cpu") == "onnxruntime_onnx"
    assert platform("litert", "tflite", "edgetpu") == "litert_tflite_edgetpu"


def test_why_it_runs_where_it_runs_is_one_line() -> None:
    def on(accelerator: str, *passed_over: str) -> str:
        return where_it_runs(
            SlotStats(
                *("digits", "digits", 1, "onnx-fp32", "onnxruntime", True, *[0] * 7),
                accelerator=accelerator,
                passed_over=passed_over,
            )
        )

    assert on("") == ""
    assert on("edgetpu") == "on edgetpu"
    assert on("cpu", "qnn: no", "hailo: no") == "on cpu, not on qnn: no; hailo: no"


def test_more_threads_than_cores_are_found() -> None:
    assert excess({"a": 2, "b": 2}, 4) == ""
    assert excess({"b": 1, "a": 4}, 4) == (
        "models have 5 threads (a 4, b 1), the board 4 cores: set fewer"
    )


@pytest.mark.parametrize(
    ("packages", "found"),
    [
        (("onnxruntime-openvino 1.24.1",), {"onnxruntime": "1.24.1"}),
        (
            ("onnxruntime-qnn 1.23", "tflite-runtime 2.14"),
            {"onnxruntime": "1.23", "tflite-runtime": "2.14"},
        ),
        (("onnxruntime-gpu 1.22", "onnxruntime 1.32"), {"onnxruntime": "1.32"}),
        ((), {}),
    ],
)
def test_a_runtime_is_found_under_the_names_of_its_builds(
    tmp_path: Path, packages: tuple[str, ...], found: dict[str, str]
) -> None:
    for package in packages:
        name, version = package.split()
        about = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    for room in ("edgefleet_agent", "edgefleet_contract"):
        (tmp_path / room).symlink_to(Path(sys.modules[room].__path__[0]))
    code = "from edgefleet_agent.runtime import engines; print(engines.available())"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],  # no packages but these
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == found
