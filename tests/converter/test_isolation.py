from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper, numpy_helper

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_converter.arrays import save_tensors
from edgefleet_converter.isolation import environment, run_task
from edgefleet_converter.recipe import Worker
from tests.converter import models
from tests.converter.conftest import Digits


def endless() -> onnx.ModelProto:
    """A valid model whose Loop takes centuries."""
    body = helper.make_graph(
        [models.one("Identity", ["c"], "d"), models.one("Tanh", ["a"], "b")],
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", models.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("d", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", models.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body, name="the_loop")
    constants = {"n": np.asarray(2**40, np.int64)}
    return models.graph([loop], shape=["batch", 4], gives=["batch", 4], constants=constants)


def hungry() -> onnx.ModelProto:
    """A valid model that wants 64 GiB."""
    value = numpy_helper.from_array(np.asarray([1.0], np.float32))
    nodes = [
        models.one("ConstantOfShape", ["size"], "huge", value=value),
        models.one("ReduceSum", ["huge"], "sum", keepdims=0),
        models.one("Add", ["x", "sum"]),
    ]
    constants = {"size": np.asarray([2**34], np.int64)}
    return models.graph(nodes, shape=["batch", 4], gives=["batch", 4], constants=constants)


def run(model: onnx.ModelProto, folder: Path, limits: Worker) -> dict[str, object]:
    onnx.save(model, folder / "m.onnx")
    save_tensors(folder / "in.npz", "input", [models.examples(2, 4)])
    return dict(
        run_task(
            "run_model",
            what="running it",
            limits=limits,
            inputs={"model": folder / "m.onnx", "inputs.npz": folder / "in.npz"},
            outputs={"outputs.npz": folder / "out.npz"},
            params={"format": "onnx"},
        )
    )


def wait_for(found: Callable[[], psutil.Process | None], seconds: float = 60) -> psutil.Process:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (process := found()) is not None:
            return process
        os.sched_yield()
    raise AssertionError("it never came")


def worker_of(pid: int) -> psutil.Process | None:
    """The worker that a process has started and that has begun its task, if there is one."""
    try:
        for child in psutil.Process(pid).children():
            if "edgefleet_converter.worker" in child.cmdline():
                return child
    except psutil.NoSuchProcess:
        pass
    return None


def test_a_task_returns_its_value_and_its_files(tmp_path: Path) -> None:
    says = run(models.mlp(), tmp_path, Worker())
    assert says["is_int8"] is False
    with np.load(tmp_path / "out.npz") as file:
        assert file["output.0"].shape == (2, 3)


def test_a_model_that_never_ends_is_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="running it: not done after 1 s") as caught:
        run(endless(), tmp_path, Worker(timeout_s=1))
    assert "worker.timeout_s" in caught.value.hint
    assert not (tmp_path / "out.npz").exists()
    assert worker_of(os.getpid()) is None


def test_a_model_that_eats_memory_is_stopped_at_its_limit(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="needs more than 2048 MiB") as caught:
        run(hungry(), tmp_path, Worker(timeout_s=60, memory_mib=2048))
    assert "worker.memory_mib" in caught.value.hint
    assert not (tmp_path / "out.npz").exists()


def test_a_worker_that_is_killed_is_an_error_that_names_the_signal(tmp_path: Path) -> None:
    def kill() -> None:
        wait_for(lambda: worker_of(os.getpid())).send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(OperatorError, match="the worker process was killed by SIGKILL"):
        run(endless(), tmp_path, Worker(timeout_s=60))
    killer.join()
    assert not (tmp_path / "out.npz").exists()


def test_a_task_works_on_copies(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    onnx.save(models.mlp(opset=12), source)  # an opset that is converted while it is read
    before = source.read_bytes()
    run_task(
        "tidy_onnx",
        what="reading",
        limits=Worker(),
        inputs={"source": source},
        outputs={"model.onnx": tmp_path / "tidy.onnx"},
    )
    assert source.read_bytes() == before
    assert onnx.load(tmp_path / "tidy.onnx").opset_import[0].version == 17


def test_an_input_that_is_missing_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="reading: cannot read"):
        run_task("tidy_onnx", what="reading", limits=Worker(), inputs={"source": tmp_path / "no"})


def test_a_library_that_is_missing_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('no', name='onnx')")
    (tmp_path / "model").write_bytes(models.mlp().SerializeToString())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(OperatorError, match="reading: onnx is not installed") as caught:
        run_task(
            "tidy_onnx", what="reading", limits=Worker(), inputs={"source": tmp_path / "model"}
        )
    assert caught.value.hint == "pip install 'edgefleet[converter]'"


def test_telemetry_of_the_runtime_is_off_in_every_worker() -> None:
    assert environment()["ORT_DISABLE_TELEMETRY"] == "1"


def start_build(digits: Digits, folder: Path) -> subprocess.Popen[str]:
    key = folder / "key.pem"
    PrivateKey.generate_p256().save(key)
    recipe = folder / "recipe.toml"
    recipe.write_text(
        "targets = ['onnx-int8']\n[data]\n"
        f"calibration = '{digits.folder}/calibration.npy'\n"
        f"held_out = '{digits.folder}/held_out.npz'\n"
    )
    (folder / "tmp").mkdir()
    command = [sys.executable, "-m", "edgefleet_converter", "build", str(digits.model)]
    command += ["--recipe", str(recipe), "--out", str(folder / "out"), "--model", "digits"]
    command += ["--version", "1", "--key", str(key)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a cache of its own: a step that another test's build has kept would start no worker
        env={
            **os.environ,
            "TMPDIR": str(folder / "tmp"),
            "EDGE_CONVERT_CACHE": str(folder / "cache"),
        },
    )


def test_a_build_whose_worker_is_killed_fails_cleanly(digits: Digits, tmp_path: Path) -> None:
    building = start_build(digits, tmp_path)
    wait_for(lambda: worker_of(building.pid)).send_signal(signal.SIGKILL)
    out, err = building.communicate(timeout=60)
    assert building.returncode == 1
    assert out == ""
    assert "edge-convert: error: converting the scikit-learn model: the worker process was" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_worker_outlives_a_build_that_is_killed(digits: Digits, tmp_path: Path) -> None:
    building = start_build(digits, tmp_path)

    def busy() -> psutil.Process | None:
        found = worker_of(building.pid)
        # once a library is mapped the task has begun, and with it the bond to the parent
        is_busy = found is not None and any("numpy" in m.path for m in found.memory_maps())
        return found if is_busy else None

    worker = wait_for(busy)
    building.kill()
    building.communicate(timeout=60)
    assert psutil.wait_procs([worker], timeout=30)[1] == []
    assert not (tmp_path / "out" / "digits-1").exists()
