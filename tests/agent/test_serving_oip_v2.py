"""The Open Inference Protocol v2 through a real front and real workers."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet_agent.ports import ModelSpec
from edgefleet_contract.bundle import TensorSpec
from tests.agent.hosting import Answered, RunningHost, running, until
from tests.agent.models import (
    asked_spec,
    linear,
    linear_spec,
    make_spec,
    model_path,
    pixels,
    tflite_spec,
)

LIMIT = 1024 * 1024
WORD = TensorSpec("word", "string", (-1,))
CLASS, ECHO = TensorSpec("class", "int64", (-1,)), TensorSpec("echo", "string", (-1,))
A, B = TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "float32", (-1, 2))
SUM, PRODUCT = TensorSpec("sum", "float32", (-1, 2)), TensorSpec("product", "float32", (-1, 2))
LOG_X, LOG_Y = TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))
PICK_I = TensorSpec("i", "int64", (-1,))
X8, Y8 = TensorSpec("x", "int8", (-1, 64)), TensorSpec("y", "int8", (-1, 10))
ONE_X, ONE_Y = TensorSpec("x", "float32", (1, 64)), TensorSpec("y", "float32", (1, 10))
KINDS: dict[str, Any] = {
    "bool": [[True, False]],
    **{f"int{bits}": [[-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]] for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": [[0, 2**bits - 1]] for bits in (8, 16, 32, 64)},
    **{f"float{bits}": [[-0.5, 0.25]] for bits in (16, 32, 64)},
    "string": [["naïve", ""]],
}


def array(dtype: str) -> np.ndarray:
    return np.array(KINDS[dtype], object if dtype == "string" else dtype)


def small(x: np.ndarray) -> np.ndarray:
    """What linear1_int8 answers: saturated sums."""
    return np.clip(linear(x.astype(np.float32)), -128, 127).astype(np.int8)


def kinds_spec(folder: Path) -> ModelSpec:
    """A model of all dtypes."""
    stored = {
        dtype: np.array(value, "U" if dtype == "string" else dtype)
        for dtype, value in KINDS.items()
    }
    return make_spec(
        folder,
        "kinds.onnx",
        {TensorSpec(dtype, dtype, (-1, 2)): value for dtype, value in stored.items()},
        {TensorSpec(f"{dtype}_too", dtype, (-1, 2)): value for dtype, value in stored.items()},
        slot="kinds",
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    with every_kind(tmp_path_factory.mktemp("models")) as running_host:
        yield running_host


@contextmanager
def every_kind(folder: Path) -> Iterator[RunningHost]:
    """One host with a model of every kind."""
    words, ones, log = np.array(["cat", "cow"]), np.ones((2, 2), np.float32), np.ones(2, np.float32)
    whole = np.ones((1, 64), np.int8)
    with running(max_body_bytes=LIMIT) as here:
        specs = (
            linear_spec(folder, 7),
            tflite_spec(folder, slot="lite"),
            make_spec(folder, "linear1_int8.tflite", {X8: whole}, {Y8: small(whole)}, slot="small"),
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
                folder, "pick.onnx", {PICK_I: np.array([1])}, {LOG_Y: log[:1] * 20}, slot="pick"
            ),
            make_spec(
                folder,
                "fixed.onnx",
                {ONE_X: pixels(1)},
                {ONE_Y: linear(pixels(1), 0)},
                slot="fixed",
            ),
            kinds_spec(folder),
        )
        assert here.do(here.host.activate(specs)) is None
        yield here


def infer(
    here: RunningHost, slot: str, value: object, binary: bytes | None = None, **headers: str
) -> Answered:
    head = value if isinstance(value, bytes) else json.dumps(value).encode()
    extra = {} if binary is None else {"Inference-Header-Content-Length": str(len(head))}
    path = f"/v2/models/{slot}/infer"
    return here.ask("POST", path, head + (binary or b""), {**extra, **headers})


def asked(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    """A request of one input."""
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, **more}]}


def sized(name: str, datatype: str, shape: list[int], size: object) -> dict[str, Any]:
    """A request of one input in binary."""
    return asked(name, datatype, shape, parameters={"binary_data_size": size})


def test_an_output_in_binary_stands_behind_one_in_json(here: RunningHost) -> None:
    outputs = [{"name": "echo", "parameters": {"binary_data": True}}, {"name": "class"}]
    answer = infer(
        here, "text", asked("word", "BYTES", [2], data=["dog", "ö"]) | {"outputs": outputs}
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.body[:size])["outputs"] == [
        {"name": "class", "datatype": "INT64", "shape": [2], "data": [2, -1]},
        {"name": "echo", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 13}},
    ]
    assert answer.body[size:] == struct.pack("<I3sI2s", 3, b"dog", 2, "ö".encode())


@pytest.mark.parametrize("data", [pixels(2).tolist(), pixels(2).ravel().tolist()])
def test_json_data_is_flat_or_nested(here: RunningHost, data: list[Any]) -> None:
    answer = infer(here, "digits", asked("x", "FP32", [2, 64], data=data) | {"model_name": "x"})
    assert answer.json()["outputs"][0]["data"] == linear(pixels(2)).ravel().tolist()


def test_rows_for_a_batch_of_one_are_run_one_by_one(here: RunningHost) -> None:
    answer = infer(here, "fixed", sized("x", "FP32", [3, 64], 768), pixels(3).tobytes())
    (output,) = answer.json()["outputs"]
    assert (output["shape"], output["data"]) == ([3, 10], linear(pixels(3), 0).ravel().tolist())


@pytest.mark.parametrize("length", range(16))
def test_binary_tensors_are_right_however_long_the_json_before_them_is(
    here: RunningHost, length: int
) -> None:
    request = sized("x", "FP32", [1, 64], 256) | {"id": "a" * length}
    answer = infer(here, "digits", request, pixels(1).tobytes()).json()
    assert (answer["id"], answer["outputs"][0]["data"]) == (
        "a" * length,
        linear(pixels(1))[0].tolist(),
    )


def test_a_body_without_json_is_the_only_input(here: RunningHost) -> None:
    answer = infer(here, "digits", b"", pixels(2).tobytes())
    assert answer.json()["outputs"][0]["data"] == linear(pixels(2)).ravel().tolist()
    refused = infer(here, "digits", b"", bytes(7))
    assert "has 7 bytes, float32 of shape [1, 64] is 256" in refused.json()["error"]
    assert "for models of one input" in infer(here, "pair", b"", bytes(8)).json()["error"]


def test_what_json_cannot_say_is_given_in_binary(here: RunningHost) -> None:
    request = asked("x", "FP32", [1], data=[0])
    refused = infer(here, "log", request)
    assert refused.status == 500
    assert "'y' holds NaN or infinity" in refused.json()["error"]
    answer = infer(here, "log", request | {"parameters": {"binary_data_output": True}})
    assert answer.body.endswith(struct.pack("<f", -np.inf))


ROW = [0] * 64
GOOD = asked("x", "FP32", [1, 64], data=ROW)


@pytest.mark.parametrize(
    ("slot", "body", "says"),
    [
        ("digits", b"", "not JSON"),
        ("digits", b"\xff\xfe", "not JSON"),
        ("digits", b"[" * 100_000, "nested too deep"),
        ("digits", b'{"inputs": [NaN]}', "NaN is not JSON"),
        ("digits", [], "the body is a list, expected an object"),
        ("digits", {}, "'inputs' is missing, expected a list with 'x'"),
        ("digits", {"inputs": {}}, "'inputs' is an object"),
        ("digits", {"inputs": []}, "input 'x' is missing"),
        ("digits", {"inputs": [3]}, "input 0 is a number, expected an object"),
        ("digits", GOOD | {"output": []}, "unknown key 'output'"),
        ("digits", GOOD | {"id": 7}, "'id' is a number, expected text"),
        ("digits", GOOD | {"parameters": []}, "'parameters' of the request is a list"),
        (
            "digits",
            GOOD | {"parameters": {"binary_data_output": 1}},
            "'binary_data_output' of the request is a number, expected true or false",
        ),
        ("digits", {"inputs": GOOD["inputs"] * 2}, "input 'x' is given twice"),
        ("digits", asked("z", "FP32", [1, 64], data=ROW), "input 0 is named 'z', expected 'x'"),
        ("digits", asked([], "FP32", [1, 64], data=ROW), "input 0 is named a list"),
        ("digits", asked("x", "FP64", [1, 64], data=ROW), "has datatype 'FP64', expected 'FP32'"),
        ("digits", asked("x", [], [1, 64], data=ROW), "has datatype [], expected 'FP32'"),
        ("digits", asked("x", "FP32", [1, 63], data=ROW), "shape [1, 63], expected [-1, 64]"),
        ("digits", asked("x", "FP32", [64], data=ROW), "shape [64], expected [-1, 64]"),
        ("digits", asked("x", "FP32", [0, 64], data=[]), "no list of sizes above 0"),
        ("digits", asked("x", "FP32", [True, 64], data=ROW), "no list of sizes above 0"),
        ("digits", asked("x", "FP32", "1", data=ROW), "no list of sizes above 0"),
        ("digits", asked("x", "FP32", [2**62, 64], data=ROW), "holds 64 values, shape"),
        (
            "digits",
            asked("x", "FP32", [1, 64], data=ROW[:63]),
            "holds 63 values, shape [1, 64] is 64",
        ),
        ("digits", asked("x", "FP32", [1, 64], data=[ROW, ROW]), "not nested as its shape"),
        ("digits", asked("x", "FP32", [1, 64], data=[[ROW]]), "not nested as its shape"),
        ("digits", asked("x", "FP32", [1, 64], data="x"), "is text, expected a list"),
        (
            "digits",
            asked("x", "FP32", [1, 64], data=[*ROW[1:], "1"]),
            "holds text, expected float32",
        ),
        ("digits", asked("x", "FP32", [1, 64], data=[*ROW[1:], True]), "holds true or false"),
        ("digits", asked("x", "FP32", [1, 64], data=[*ROW[1:], None]), "holds null"),
        ("digits", asked("x", "FP32", [1, 64], data=[*ROW[1:], [1]]), "holds a list"),
        ("digits", asked("x", "FP32", [1, 64], data=[*ROW[1:], 1e300]), "too large for float32"),
        ("digits", asked("x", "FP32", [1, 64], data=[*ROW[1:], 10**400]), "too large for float32"),
        ("pick", asked("i", "INT64", [1], data=[1.0]), "holds fractions, expected int64"),
        ("pick", asked("i", "INT64", [1], data=[2**63]), "int64 is -9223372036854775808 to"),
        ("pick", asked("i", "INT64", [1], data=[99]), "indices element out of data bounds"),
        ("text", asked("word", "BYTES", [1], data=[1]), "holds a number, expected string"),
        ("text", asked("word", "BYTES", [1], data=["\ud800"]), "text that is not Unicode"),
        ("digits", asked("x", "FP32", [1, 64]), "needs one of 'data' and 'binary_data_size'"),
        ("digits", sized("x", "FP32", [1, 64], 256), "announces 256 bytes, 0 are left"),
        ("digits", GOOD | {"outputs": [{"name": "z"}]}, "named 'z', this model has 'y'"),
        ("digits", GOOD | {"outputs": [{"name": "y"}, {"name": "y"}]}, "'y' is asked for twice"),
        ("digits", GOOD | {"outputs": "y"}, "'outputs' is text, expected a list"),
        (
            "digits",
            GOOD | {"outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            "output 'y' has parameter 'classification', which is not served here",
        ),
    ],
)
def test_a_bad_body_is_400_and_says_what_was_found(
    here: RunningHost, slot: str, body: object, says: str
) -> None:
    answer = infer(here, slot, body)
    assert says in answer.json()["error"]
    assert answer.status == 400
    assert (here.stats(slot).failures, here.stats(slot).restarts) == (0, 0)


WORDS = struct.pack("<I3sI3s", 3, b"cat", 3, b"dog")


@pytest.mark.parametrize(
    ("slot", "body", "binary", "says"),
    [
        ("digits", sized("x", "FP32", [1, 64], 256), bytes(255), "announces 256 bytes, 255 are"),
        ("digits", sized("x", "FP32", [1, 64], 256), bytes(257), "1 bytes behind the last input"),
        ("digits", sized("x", "FP32", [1, 64], 252), bytes(252), "has 252 bytes, float32 of shape"),
        ("digits", sized("x", "FP32", [2**62, 64], 256), bytes(256), "has 256 bytes"),
        ("digits", sized("x", "FP32", [1, 64], -1), bytes(256), "is not a number of bytes"),
        ("digits", sized("x", "FP32", [1, 64], "256"), bytes(256), "is not a number of bytes"),
        (
            "digits",
            asked("x", "FP32", [1, 64], data=ROW, parameters={"binary_data_size": 256}),
            bytes(256),
            "needs one of",
        ),
        (
            "digits",
            asked("x", "FP32", [1, 64], parameters={"shared_memory_region": "r"}),
            b"",
            "'shared_memory_region', which is not served here",
        ),
        ("text", sized("word", "BYTES", [3], 14), WORDS, "holds 2 elements, its shape is 3"),
        ("text", sized("word", "BYTES", [1], 14), WORDS, "more than 1 elements, its shape is 1"),
        ("text", sized("word", "BYTES", [2], 13), WORDS[:-1], "announces 3 bytes, 2 are left"),
        ("text", sized("word", "BYTES", [2], 9), WORDS[:9], "within the length of element 1"),
        (
            "text",
            sized("word", "BYTES", [1], 5),
            b"\1\0\0\0\xff",
            "element 0 of input 'word' is not UTF-8",
        ),
        ("text", sized("word", "BYTES", [1], 4), b"\xff" * 4, "announces 4294967295 bytes, 0 are"),
    ],
)
def test_bytes_that_do_not_fit_are_400_and_say_what_was_found(
    here: RunningHost, slot: str, body: object, binary: bytes, says: str
) -> None:
    answer = infer(here, slot, body, binary)
    assert says in answer.json()["error"]
    assert answer.status == 400
    assert (here.stats(slot).failures, here.stats(slot).restarts) == (0, 0)


@pytest.mark.parametrize(
    ("length", "says"),
    [
        ("9999", "is 9999, the body has 4 bytes"),
        ("-1", "is '-1', no number of bytes"),
        ("x", "is 'x', no number of bytes"),
        ("99999999999", "no number of bytes"),
        ("4294967295", "no number of bytes"),
    ],
)
def test_a_length_of_the_json_that_cannot_be_is_400(
    here: RunningHost, length: str, says: str
) -> None:
    headers = {"Inference-Header-Content-Length": length}
    answer = here.ask("POST", "/v2/models/digits/infer", b"abcd", headers)
    assert answer.status == 400
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/v2/models/nobody/infer", 404, "model 'nobody' is not served here"),
        ("POST", "/v2/models/digits/versions/6/infer", 404, "version '6' of 'digits' is not"),
        ("GET", "/v2/models/digits/versions/6", 404, "is not served here, 7 is"),
        ("GET", "/v2/models/digits/config", 404, "nothing is served at"),
        ("GET", "/v2/models/digits/infer", 405, "POST is"),
        ("GET", "/v2/repository/index", 405, "POST is"),
        ("POST", "/v2/health/live", 405, "GET, HEAD is"),
        ("POST", "/v2/repository/models/digits/unload", 404, "nothing is served at"),
    ],
)
def test_what_is_not_there_says_so(
    here: RunningHost, method: str, path: str, status: int, says: str
) -> None:
    answer = here.ask(method, path, b"{}" if method == "POST" else None)
    assert says in answer.json()["error"]
    assert answer.status == status
    assert (status == 405) == ("allow" in answer.headers)


def test_a_version_can_be_asked_for_by_number(here: RunningHost) -> None:
    assert here.ask("POST", "/v2/models/digits/versions/7/infer", GOOD).status == 200


def test_a_body_above_the_limit_is_413(here: RunningHost) -> None:
    answer = infer(here, "digits", b" " * (LIMIT + 1))
    assert answer.status == 413
    assert f"larger than {LIMIT} bytes" in answer.json()["error"]


def test_a_compressed_body_is_415(here: RunningHost) -> None:
    answer = infer(here, "digits", b"?", **{"Content-Encoding": "gzip"})
    assert answer.status == 415
    assert "'gzip' is not read" in answer.json()["error"]


def test_the_index_leaves_out_what_is_not_ready_when_asked_to(tmp_path: Path) -> None:
    with running(deadline_s=1.0) as here:
        spec = linear_spec(tmp_path)
        here.do(here.host.activate((spec,)))
        model_path(spec).write_bytes(b"rotten")  # so that no new worker loads
        os.kill(here.host.worker_pids["digits"], signal.SIGKILL)
        until(lambda: here.ask("GET", "/v2/health/ready").status == 400)
        assert here.ask("GET", "/v2/health/ready").json() == {"ready": False}
        assert here.ask("GET", "/v2/models/digits/ready").status == 400
        assert here.ask("GET", "/v2/health/live").status == 200
        (listed,) = here.ask("POST", "/v2/repository/index").json()
        assert listed["state"] == "UNAVAILABLE"
        assert here.ask("POST", "/v2/repository/index", {"ready": True}).json() == []
        assert here.ask("POST", "/v2/repository/index", {"ready": 1}).status == 400
        answer = infer(here, "digits", GOOD)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "no worker of digits" in answer.json()["error"]


def test_a_full_queue_is_503_and_a_slow_answer_504(tmp_path: Path) -> None:
    slow = asked("n", "INT64", [1, 1], data=[1_000_000])
    with running(queue=1, deadline_s=1.0) as here, ThreadPoolExecutor(8) as pool:
        here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 1),)))
        answers = [pool.submit(infer, here, "busy", slow) for _ in range(8)]
        statuses = {future.result().status for future in answers}
        assert statuses == {503, 504}
        assert all(
            answer.result().headers["retry-after"] == "1"
            for answer in answers
            if answer.result().status == 503
        )
