"""Both clients against real fronts and real workers: the same words, the same answers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet_agent.client import AsyncClient, Client, Metadata, ModelState
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import DeviceError, OperatorError, TransientError
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import (
    X,
    Y,
    asked_spec,
    linear,
    linear_spec,
    make_spec,
    model_path,
    pixels,
    tflite_spec,
)

WORD = TensorSpec("word", "string", (-1,))
CLASS, ECHO = TensorSpec("class", "int64", (-1,)), TensorSpec("echo", "string", (-1,))
A, B = TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "float32", (-1, 2))
SUM, PRODUCT = TensorSpec("sum", "float32", (-1, 2)), TensorSpec("product", "float32", (-1, 2))
LOG_X, LOG_Y = TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))
ONE_X, ONE_Y = TensorSpec("x", "float32", (1, 64)), TensorSpec("y", "float32", (1, 10))
GUIDE = Path(__file__).parents[2] / "docs/guides/predict.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
KINDS: dict[str, Any] = {
    "bool": [[True, False]],
    **{f"int{bits}": [[-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]] for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": [[0, 2**bits - 1]] for bits in (8, 16, 32, 64)},
    **{f"float{bits}": [[-0.5, 0.25]] for bits in (16, 32, 64)},
    "string": [["naïve", ""]],
}
FEEDS = {d: np.array(v, object if d == "string" else d) for d, v in KINDS.items()}
STORED = {d: np.array(v, "U" if d == "string" else d) for d, v in KINDS.items()}


class OnALoop:
    """An `AsyncClient` whose methods are run to their end, as those of a `Client` are."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client, self._runner = client, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **more: self._runner.run(getattr(self._client, name)(*args, **more))


Open = Callable[..., Any]


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def open_(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a client of either kind; all are closed afterwards."""
    with ExitStack() as stack:
        if request.param is Client:
            yield lambda *args, **more: stack.enter_context(Client(*args, **more))
            return
        runner = stack.enter_context(asyncio.Runner())

        def on_a_loop(*args: Any, **more: Any) -> OnALoop:
            client = OnALoop(AsyncClient(*args, **more), runner)
            stack.callback(client.close)
            return client

        yield on_a_loop


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """One host with a model of every kind."""
    folder = tmp_path_factory.mktemp("models")
    words, ones, log = np.array(["cat", "cow"]), np.ones((2, 2), np.float32), np.ones(2, np.float32)
    with running(listen=("127.0.0.1:0", f"unix:{folder}/serve.sock")) as here:
        specs = (
            linear_spec(folder, 7),
            tflite_spec(folder, slot="lite"),
            make_spec(
                folder,
                "text.onnx",
                {WORD: words},
                {CLASS: np.array([1, -1]), ECHO: words},
                slot="text",
            ),
            make_spec(
                folder, "pair.onnx", {A: ones, B: ones}, {SUM: ones * 2, PRODUCT: ones}, slot="pair"
            ),
            make_spec(folder, "log.onnx", {LOG_X: log}, {LOG_Y: log * 0}, slot="log"),
            make_spec(
                folder,
                "fixed.onnx",
                {ONE_X: pixels(1)},
                {ONE_Y: linear(pixels(1), 0)},
                slot="fixed",
            ),
            make_spec(
                folder,
                "kinds.onnx",
                {TensorSpec(d, d, (-1, 2)): value for d, value in STORED.items()},
                {TensorSpec(f"{d}_too", d, (-1, 2)): value for d, value in STORED.items()},
                slot="kinds",
            ),
        )
        assert here.do(here.host.activate(specs)) is None
        yield here


@pytest.fixture
def client(here: RunningHost, open_: Open) -> Any:
    """A client of either kind."""
    return open_(f"127.0.0.1:{here.port}")


def test_a_client_finds_the_models_and_what_they_take(client: Any) -> None:
    assert client.models()[0] == ModelState("digits", "7", True, "")
    assert client.metadata("digits") == Metadata("digits", "7", "onnxruntime_onnx", (X,), (Y,))
    assert client.metadata("digits", version="7").version == "7"
    assert client.is_ready()
    assert client.is_ready("digits")
    assert not client.is_ready("nobody")


@pytest.mark.parametrize("model", ["digits", "lite"])
def test_one_array_is_the_only_input(client: Any, model: str) -> None:
    (y,) = client.infer(model, pixels(3)).values()
    assert y.dtype == np.float32
    assert np.array_equal(y, linear(pixels(3)))


def test_a_socket_in_the_file_system_is_asked_alike(here: RunningHost, open_: Open) -> None:
    address = next(a for a in here.host.addresses if a.startswith("unix:"))
    assert np.array_equal(open_(address).infer("digits", pixels(1))["y"], linear(pixels(1)))


def test_every_dtype_goes_through_and_comes_back(client: Any) -> None:
    answer = client.infer("kinds", FEEDS)
    for dtype, value in FEEDS.items():
        found = answer[f"{dtype}_too"]
        assert found.dtype == value.dtype
        assert found.tolist() == value.tolist()


@pytest.mark.parametrize("dtype", ["U", "S", object])
def test_text_comes_in_any_array_that_holds_it(client: Any, dtype: Any) -> None:
    answer = client.infer("text", np.array(["dog", "cat"], dtype))
    assert answer["class"].tolist() == [2, 1]
    assert answer["echo"].tolist() == ["dog", "cat"]


def test_arrays_lie_in_memory_as_they_like(client: Any) -> None:
    wide = np.asfortranarray(pixels(4))[::2].astype(">f4")
    assert np.array_equal(client.infer("digits", wide)["y"], linear(pixels(4)[::2]))


def test_named_outputs_only_are_given(client: Any) -> None:
    ones = np.ones((1, 2), np.float32)
    answer = client.infer("pair", {"a": ones, "b": ones * 3}, outputs=["product"])
    assert {name: value.tolist() for name, value in answer.items()} == {"product": [[3.0, 3.0]]}


def test_infinity_comes_back(client: Any) -> None:
    assert client.infer("log", np.zeros(1, np.float32))["y"].tolist() == [-np.inf]


def test_rows_for_a_batch_of_one_are_run_one_by_one(client: Any) -> None:
    assert np.array_equal(client.infer("fixed", pixels(3))["y"], linear(pixels(3), 0))


def test_json_is_asked_in_tensorflow_serving_s_words(client: Any) -> None:
    rows = pixels(1).tolist()
    expected = {"predictions": linear(pixels(1)).tolist()}
    assert client.predict_json("digits", rows) == expected
    assert client.predict_json("digits", {"instances": rows}, version="7") == expected
    told = client.predict_json("digits", {"examples": [{"x": rows[0]}]}, method="classify")
    assert len(told["result"][0]) == 10


@pytest.mark.parametrize(
    ("model", "inputs", "says"),
    [
        ("digits", pixels(1).astype("f8"), "input 'x' has dtype float64, expected float32"),
        ("digits", pixels(1)[:, :63], r"has shape \[1, 63\], expected \[-1, 64\]"),
        ("digits", pixels(1)[0], r"has shape \[64\], expected \[-1, 64\]"),
        ("digits", pixels(0), r"is empty, its shape is \[0, 64\]"),
        ("digits", {"z": pixels(1)}, "digits takes 'x', found 'z'"),
        ("digits", {}, "digits takes 'x', found nothing"),
        ("pair", pixels(1), "pair takes 'a', 'b', found one array without a name"),
        ("text", np.array([1, 2]), "input 'word' holds int64, expected text"),
        ("text", np.array([None], object), "input 'word' holds NoneType, expected text"),
        ("text", np.array([b"\xff"], object), "holds text that is not UTF-8"),
        ("text", np.array(["\ud800"], object), "holds text that is not UTF-8"),
        ("nobody", pixels(1), r"model 'nobody' is not served here \(status 404\)"),
    ],
)
def test_what_the_caller_got_wrong_says_what_was_found(
    client: Any, model: str, inputs: Any, says: str
) -> None:
    with pytest.raises(OperatorError, match=says):
        client.infer(model, inputs)


def test_what_the_device_refuses_is_told_in_its_words(client: Any) -> None:
    with pytest.raises(OperatorError, match=r"'z', this model has 'y' \(status 400\)"):
        client.infer("digits", pixels(1), outputs=["z"])
    with pytest.raises(OperatorError, match="version '6' of 'digits' is not served here"):
        client.infer("digits", pixels(1), version="6")
    with pytest.raises(DeviceError, match=r"NaN or infinity, .* \(status 500\)"):
        client.predict_json("log", [0.0])


@pytest.mark.parametrize("address", ["nowhere", "host:port", ""])
def test_an_address_that_is_none_is_refused(open_: Open, address: str) -> None:
    with pytest.raises(OperatorError, match="is not an address"):
        open_(address)


def test_a_host_that_went_away_is_found_again(tmp_path: Path, open_: Open) -> None:
    address = f"unix:{tmp_path}/serve.sock"
    client = open_(address)

    def serve() -> Any:
        return running(listen=(address,))

    with pytest.raises(TransientError, match="no agent answers at unix:"):
        client.infer("digits", pixels(1))
    for version in (1, 2):  # the kept connection is found closed: no error comes of that
        with serve() as here:
            here.do(here.host.activate((linear_spec(tmp_path, version),)))
            assert np.array_equal(
                client.infer("digits", pixels(1))["y"], linear(pixels(1), version)
            )
    with pytest.raises(TransientError, match="no agent answers at unix:"):
        client.infer("digits", pixels(1))
    with serve() as here:
        here.do(here.host.activate((linear_spec(tmp_path, 3),)))
        assert client.infer("digits", pixels(1))["y"].shape == (1, 10)


def test_what_a_new_version_takes_is_asked_again(tmp_path: Path, open_: Open) -> None:
    words = np.array(["cat", "cow"])
    text = make_spec(
        tmp_path, "text.onnx", {WORD: words}, {CLASS: np.array([1, -1]), ECHO: words}, version=2
    )
    with running() as here:
        client = open_(f"127.0.0.1:{here.port}")
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        client.infer("digits", pixels(1))
        here.do(here.host.activate((text,)))
        assert client.infer("digits", words)["class"].tolist() == [1, -1]


def test_a_model_without_a_worker_is_503_and_says_when_to_come_back(
    tmp_path: Path, open_: Open
) -> None:
    with running(deadline_s=1.0) as here:
        spec = linear_spec(tmp_path)
        here.do(here.host.activate((spec,)))
        client = open_(f"127.0.0.1:{here.port}")
        client.infer("digits", pixels(1))
        model_path(spec).write_bytes(b"rotten")  # so that no new worker loads
        os.kill(here.host.worker_pids["digits"], signal.SIGKILL)
        until(lambda: not client.is_ready("digits"))
        assert not client.is_ready()
        assert "worker" in client.models()[0].reason
        with pytest.raises(TransientError, match="no worker of digits") as caught:
            client.infer("digits", pixels(1))
        assert caught.value.retry_after_s == 1.0


def test_a_host_that_says_nothing_is_given_up(open_: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = open_(f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(TransientError, match="no agent answers"):
            client.is_ready("digits")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", DeviceError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", TransientError),
        (b"SMTP\r\n\r\n", TransientError),
    ],
)
def test_a_stranger_s_answer_is_an_error_of_ours(
    open_: Open, answer: bytes, error: type[Exception]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def speak() -> None:
            with stranger.accept()[0] as one:
                one.recv(65536)
                one.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(error):
            open_(f"127.0.0.1:{stranger.getsockname()[1]}").metadata("digits")
        thread.join()


def test_a_hundred_tasks_ask_at_once_and_each_gets_its_own_answer(here: RunningHost) -> None:
    async def all_of_them() -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncClient(f"127.0.0.1:{here.port}"))
            asked = [np.full((1, 64), i, np.float32) for i in range(100)]
            answers = await asyncio.gather(*(client.infer("digits", x) for x in asked))
            for x, answer in zip(asked, answers, strict=True):
                assert np.array_equal(answer["y"], linear(x))

    asyncio.run(all_of_them())


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_guide_s_python_runs(
    here: RunningHost, block: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "tritonclient" in block:
        pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    address = f"127.0.0.1:{here.port}"
    assert "127.0.0.1:8501" in block
    exec(block.replace("127.0.0.1:8501", address), {})  # our own page
    assert capsys.readouterr().out == "(1, 10)\n"


def test_a_slow_model_does_not_hold_up_another(tmp_path: Path) -> None:
    async def race(address: str) -> tuple[bool, int]:
        async with AsyncClient(address, connections=2) as client:
            slow = asyncio.create_task(client.infer("busy", np.array([[2000]])))
            quick = 0
            start = time.monotonic()
            while not slow.done() and quick < 5 and time.monotonic() - start < 60:
                await client.infer("digits", pixels(1))
                quick += 1
            was_done = slow.done()
            await slow
            return was_done, quick

    with running() as here:
        specs = (asked_spec(tmp_path, "busy.onnx", 1), linear_spec(tmp_path))
        here.do(here.host.activate(specs))
        assert asyncio.run(race(f"127.0.0.1:{here.port}")) == (False, 5)


def test_a_cancelled_task_leaves_no_answer_to_the_next(here: RunningHost) -> None:
    async def cancel() -> None:
        async with AsyncClient(f"127.0.0.1:{here.port}", connections=1) as client:
            await client.infer("digits", pixels(1))
            task = asyncio.create_task(client.infer("digits", pixels(3)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.infer("digits", pixels(2)))["y"].shape == (2, 10)

    asyncio.run(cancel())
