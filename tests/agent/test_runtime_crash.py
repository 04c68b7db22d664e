"""Models that really kill their runtime: the trial pays, or a worker, and what served serves on.

Both are valid, load in nobody's checker as wrong, and could be signed by mistake
(`tests/vectors/models/make.py` says how they work).
"""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.ports import Failed, ModelSpec, TrialReport
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_contract import bundle as b
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Board
from tests.agent.bundles import PUBLISHER, make_bundle
from tests.agent.hosting import running, until
from tests.agent.models import WEIGHTS, make_spec, pixels, raw
from tests.agent.shelf import serve
from tests.contract.makers import order_of, target_of

FLAG_X, FLAG_Y = b.TensorSpec("x", "bool", (1,)), b.TensorSpec("y", "bool", (1,))
PAIR, QUOTIENT = b.TensorSpec("x", "int32", (-1, 2)), b.TensorSpec("y", "int32", (-1, 1))
LOWEST = -(2**31)

traps = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only x86 traps at -2^31 / -1"
)


def tried(spec: ModelSpec) -> TrialReport | Failed:
    return asyncio.run(try_model(spec, timeout_s=30, threads=1, data_mib=1024))


def divide_spec(folder: Path, *rows: tuple[int, int]) -> ModelSpec:
    """The golden vectors are these divisions."""
    x = np.array(rows, np.int32)
    y = np.array([[int(one / two) & 0x7FFFFFFF] for one, two in rows], np.int32)
    return make_spec(folder, "divide.onnx", {PAIR: x}, {QUOTIENT: y}, slot="divide")


def test_a_model_that_kills_its_runtime_kills_its_trial_and_nobody_else(tmp_path: Path) -> None:
    flag = np.array([True])
    spec = make_spec(tmp_path, "crash.tflite", {FLAG_X: flag}, {FLAG_Y: flag})
    failed = tried(spec)
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.TRIAL_CRASHED
    assert "SIGSEGV" in failed.detail


@traps
def test_an_input_that_kills_a_runtime_does_so_in_the_trial_if_it_is_golden(
    tmp_path: Path,
) -> None:
    assert isinstance(tried(divide_spec(tmp_path / "good", (7, 2), (9, 3))), TrialReport)
    failed = tried(divide_spec(tmp_path / "bad", (7, 2), (LOWEST, -1)))
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.TRIAL_CRASHED
    assert "SIGFPE" in failed.detail


@traps
def test_a_request_that_kills_the_runtime_is_given_up_and_the_next_ones_are_answered(
    tmp_path: Path,
) -> None:
    """Not a signal sent by a test: the request itself ends every worker that takes it."""
    with running() as here:
        here.do(here.host.activate((divide_spec(tmp_path, (7, 2)),)))
        assert here.predict("divide", {"instances": [[7, 2]]}).json() == {"predictions": [[3]]}
        answer = here.predict("divide", {"instances": [[LOWEST, -1]]})
        assert answer.status == 500
        assert "died twice" in answer.json()["error"]
        until(lambda: here.stats("divide").ready)
        assert here.predict("divide", {"instances": [[9, 3]]}).json() == {"predictions": [[3]]}
        assert here.stats("divide").restarts == 2


def crash_bundle(root: Path, version: int) -> Path:
    """A publisher's bundle of `crash.tflite`, in good order."""
    folder = root / f"digits-{version}"
    (folder / "v").mkdir(parents=True)
    (folder / "v" / "model.tflite").write_bytes(raw("crash.tflite"))
    flag = np.array([[True]])
    np.savez(folder / "v" / "golden.npz", **{"input.0": flag, "output.0": flag})
    variant = b.Variant(
        name="tflite",
        format=b.Format.TFLITE,
        precision="float32",
        model="v/model.tflite",
        golden="v/golden.npz",
        max_abs_err_e6=10,
        inputs=(FLAG_X,),
        outputs=(FLAG_Y,),
        runtimes={"litert": "1.0"},
    )
    files = (
        b.describe_file(folder, "v/golden.npz", b.Role.GOLDEN),
        b.describe_file(folder, "v/model.tflite", b.Role.MODEL),
    )
    document = b.render_manifest(b.Manifest("digits", version, 1, "0.1.0", (variant,), files))
    (folder / b.MANIFEST).write_bytes(document)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(document, PUBLISHER))
    return folder


def test_a_device_that_is_sent_one_keeps_serving_what_it_had_and_takes_it_no_more(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        with serve() as shelf:
            good, bad = make_bundle(tmp_path, 1), crash_bundle(tmp_path, 2)
            shelf.put_bundle(good)
            shelf.put_bundle(bad)
            source = (shelf.url,)
            async with Board(tmp_path / "pi") as board:
                await board.install(order_of(target_of(good), seq=1, sources=source))
                ended = await board.install(order_of(target_of(bad), seq=2, sources=source))
                assert (ended, board.heard.steps[-1][1]) == (Phase.FAILED, Reason.TRIAL_CRASHED)
                assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)
                again = await board.install(order_of(target_of(bad), seq=3, sources=source))
                assert (again, board.heard.steps[-1][1]) == (Phase.REJECTED, Reason.QUARANTINED)
                assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)

    asyncio.run(story())
