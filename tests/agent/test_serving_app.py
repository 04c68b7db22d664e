"""The HTTP door, through a real front and real workers: every answer that a client can get."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgefleet_contract.bundle import TensorSpec
from tests.agent.hosting import RunningHost, running, until
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
ROW = pixels(1)[0].tolist()
WORD = TensorSpec("word", "string", (-1,))
CLASS = TensorSpec("class", "int64", (-1,))
ECHO = TensorSpec("echo", "string", (-1,))
A, B = TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "float32", (-1, 2))
SUM, PRODUCT = TensorSpec("sum", "float32", (-1, 2)), TensorSpec("product", "float32", (-1, 2))
LOG_X, LOG_Y = TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))
PICK_I = TensorSpec("i", "int64", (-1,))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """One host with a model of every kind."""
    folder = tmp_path_factory.mktemp("models")
    words = np.array(["cat", "cow"])
    ones = np.ones((2, 2), np.float32)
    log = np.ones(2, np.float32)
    with running(max_body_bytes=LIMIT) as here:
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
                folder, "pick.onnx", {PICK_I: np.array([1])}, {LOG_Y: log[:1] * 20}, slot="pick"
            ),
        )
        assert here.do(here.host.activate(specs)) is None
        yield here


@pytest.mark.parametrize("slot", ["digits", "lite"])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_in_predictions_out(here: RunningHost, slot: str, rows: int) -> None:
    answer = here.predict(slot, {"instances": pixels(rows).tolist()})
    assert answer.status == 200
    assert answer.json() == {"predictions": linear(pixels(rows)).tolist()}
    assert answer.headers["content-type"] == "application/json"


def test_columns_in_outputs_out(here: RunningHost) -> None:
    answer = here.predict(
        "digits", {"inputs": pixels(2).tolist(), "signature_name": "serving_default"}
    )
    assert answer.json() == {"outputs": linear(pixels(2)).tolist()}
    named = here.predict("digits", {"inputs": {"x": pixels(2).tolist()}})
    assert named.body == answer.body


def test_several_inputs_are_named_in_rows_and_in_columns(here: RunningHost) -> None:
    rows = here.predict(
        "pair", {"instances": [{"a": [1, 2], "b": [3, 4]}, {"b": [5, 6], "a": [7, 8]}]}
    )
    assert rows.json() == {
        "predictions": [
            {"sum": [4.0, 6.0], "product": [3.0, 8.0]},
            {"sum": [12.0, 14.0], "product": [35.0, 48.0]},
        ]
    }
    columns = here.predict("pair", {"inputs": {"a": [[1, 2]], "b": [[3, 4]]}})
    assert columns.json() == {"outputs": {"sum": [[4.0, 6.0]], "product": [[3.0, 8.0]]}}


def test_text_goes_plain_or_in_base64(here: RunningHost) -> None:
    answer = here.predict("text", {"instances": ["dog", {"b64": "Y2F0"}, "naïve"]})
    assert answer.json() == {
        "predictions": [
            {"class": 2, "echo": "dog"},
            {"class": 1, "echo": "cat"},
            {"class": -1, "echo": "naïve"},
        ]
    }


@pytest.mark.parametrize(
    ("slot", "body", "says"),
    [
        ("digits", b"", "not JSON"),
        ("digits", b"{", "not JSON"),
        ("digits", b"\xff\xfe{}", "not JSON"),
        ("digits", b"[" * 100_000, "nested too deep"),
        ("digits", b'{"instances": [NaN]}', "NaN is not JSON"),
        ("digits", [1], "a list, expected an object"),
        ("digits", {}, "exactly one of 'instances'"),
        ("digits", {"instances": [ROW], "inputs": [ROW]}, "exactly one of 'instances'"),
        ("digits", {"instance": [ROW]}, "unknown key 'instance'"),
        ("digits", {"instances": [ROW], "signature_name": "other"}, "signature 'other'"),
        ("digits", {"instances": 3}, "'instances' is a number, expected a list"),
        ("digits", {"instances": []}, "'instances' is empty"),
        ("digits", {"instances": [ROW[:63]]}, "shape [1, 63], expected [-1, 64]"),
        ("digits", {"instances": [ROW, ROW[:63]]}, "ragged, expected shape [-1, 64]"),
        ("digits", {"instances": ROW}, "shape [64], expected [-1, 64]"),
        ("digits", {"instances": [["a"] * 64]}, "holds text, expected float32"),
        ("digits", {"instances": [[None] * 64]}, "null, objects"),
        ("digits", {"instances": [[True] * 64]}, "true or false, expected float32"),
        ("digits", {"instances": [[*ROW[1:], True]]}, "true or false, expected float32"),
        ("pick", {"instances": [1, True]}, "true or false, expected int64"),
        ("digits", {"instances": [[1e300] * 64]}, "too large for float32"),
        ("digits", {"instances": [{"z": ROW}]}, "instance 0 has 'z', expected 'x'"),
        ("digits", {"inputs": {"z": [ROW]}}, "'inputs' has 'z', expected 'x'"),
        ("digits", {"instances": [{"x": ROW}, ROW]}, "instance 1 has a list, expected 'x'"),
        ("pair", {"instances": [[1, 2]]}, "must be an object with 'a', 'b'"),
        ("pair", {"inputs": [[1, 2]]}, "expected an object with 'a', 'b'"),
        ("pair", {"instances": [{"a": [1, 2]}]}, "instance 0 has 'a', expected 'a', 'b'"),
        ("text", {"instances": [1]}, "holds a number, expected strings"),
        ("text", {"instances": [{"b64": "?"}]}, "is not base64"),
        ("text", {"instances": [{"b64": "/w=="}]}, "does not hold UTF-8"),
        ("text", {"instances": ["\ud800"]}, "text that is not Unicode"),
        ("text", {"instances": [["a"], "b"]}, "ragged"),
        ("pick", {"instances": [1.5]}, "holds fractions, expected int64"),
        ("pick", {"instances": [2**70]}, "numbers too large, expected int64"),
        ("pick", {"instances": [2**63]}, "int64 is -9223372036854775808 to"),
        ("pick", {"instances": [99]}, "indices element out of data bounds"),
    ],
)
def test_a_bad_body_is_400_and_says_what_was_expected(
    here: RunningHost, slot: str, body: object, says: str
) -> None:
    answer = here.predict(slot, body)
    assert says in answer.json()["error"]
    assert answer.status == 400
    until(lambda: here.stats(slot).requests > 0)
    assert (here.stats(slot).failures, here.stats(slot).restarts) == (0, 0)


def test_outputs_that_json_cannot_say_are_500_and_count_as_failures(here: RunningHost) -> None:
    answer = here.predict("log", {"instances": [1.0, 0.0]})
    assert answer.status == 500
    assert "'y' holds NaN or infinity" in answer.json()["error"]
    until(lambda: here.stats("log").failures == 1)
    assert here.predict("log", {"instances": [1.0]}).json() == {"predictions": [0.0]}


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/v1/models/nobody:predict", 404, "Latest(nobody)"),
        ("POST", "/v1/models/digits/versions/6:predict", 404, "Specific(digits, 6)"),
        ("POST", "/v1/models/digits/versions/x:predict", 404, "Specific(digits, x)"),
        ("POST", "/v1/models/digits/labels/canary:predict", 404, "version label: canary"),
        ("POST", "/v1/models/nobody/labels/stable:predict", 404, "Latest(nobody)"),
        ("GET", "/v1/models/nobody", 404, "Could not find any versions of model nobody"),
        ("GET", "/v1/models/digits/versions/6", 404, "Could not find version 6 of model digits"),
        ("GET", "/v1/models/digits/labels/canary", 404, "version label: canary"),
        ("GET", "/v1/models/nobody/metadata", 404, "Latest(nobody)"),
        ("POST", "/v1/models/digits:explain", 404, "nothing is served"),
        ("GET", "/v1/models/digits:predict", 405, "POST is"),
        ("DELETE", "/v1/models/digits", 405, "GET, HEAD is"),
        ("POST", "/healthz", 405, "GET, HEAD is"),
        ("GET", "/", 404, "nothing is served at /"),
        ("GET", "/v1/models/a/b/c", 404, "nothing is served"),
    ],
)
def test_what_is_not_there_says_so(
    here: RunningHost, method: str, path: str, status: int, says: str
) -> None:
    answer = here.ask(method, path, b"{}" if method == "POST" else None)
    assert says in answer.json()["error"]
    assert answer.status == status
    assert (status == 405) == ("allow" in answer.headers)


def test_a_version_can_be_asked_for_by_number_or_label(here: RunningHost) -> None:
    for of in ("versions/7", "labels/stable"):
        answer = here.ask("POST", f"/v1/models/digits/{of}:predict", {"instances": [ROW]})
        assert answer.status == 200
        assert answer.headers["edgefleet-model-version"] == "7"


def tensor_info(name: str, dtype: str, *sizes: str) -> dict[str, object]:
    dim = [{"size": size, "name": ""} for size in sizes]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dim, "unknown_rank": False},
        "name": name,
    }


def test_status_and_metadata_have_tensorflow_servings_shape(here: RunningHost) -> None:
    available = {
        "version": "7",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in (
        "/v1/models/digits",
        "/v1/models/digits/versions/7",
        "/v1/models/digits/labels/stable",
    ):
        assert here.ask("GET", path).json() == {"model_version_status": [available]}
    for of in ("", "/versions/7", "/labels/stable"):
        metadata = here.ask("GET", f"/v1/models/digits{of}/metadata").json()
        assert metadata == {
            "model_spec": {"name": "digits", "signature_name": "", "version": "7"},
            "metadata": {
                "signature_def": {
                    "signature_def": {
                        "serving_default": {
                            "inputs": {"x": tensor_info("x", "DT_FLOAT", "-1", "64")},
                            "outputs": {"y": tensor_info("y", "DT_FLOAT", "-1", "10")},
                            "method_name": "tensorflow/serving/predict",
                            "defaults": {},
                        }
                    }
                }
            },
        }
    names = [model["name"] for model in here.ask("GET", "/v1/models").json()["models"]]
    assert names == ["digits", "lite", "text", "pair", "log", "pick"]


def test_health_readiness_and_metrics(here: RunningHost) -> None:
    here.predict("digits", {"instances": [ROW]})
    assert here.ask("GET", "/healthz").json() == {"alive": True}
    assert here.ask("GET", "/readyz").json() == {"ready": True, "waiting_for": []}
    answer = here.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = dict(
        line.rsplit(" ", 1)
        for line in answer.body.decode().splitlines()
        if not line.startswith("#")
    )
    label = 'model="digits",version="7"'
    asked = float(samples[f'edgefleet_requests_total{{{label},code="200"}}'])
    assert asked >= 1
    assert float(samples[f"edgefleet_request_seconds_count{{{label}}}"]) == asked
    assert float(samples[f'edgefleet_request_seconds_bucket{{{label},le="+Inf"}}']) == asked
    assert 0 < float(samples[f"edgefleet_request_seconds_sum{{{label}}}"]) < 60
    assert samples[f"edgefleet_worker_up{{{label}}}"] == "1"


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_413_and_the_client_hears_it(
    here: RunningHost, size: int, chunked: bool
) -> None:
    connection = here.connect()
    body = b" " * size
    if chunked:
        pieces = (body[i : i + 65536] for i in range(0, size, 65536))
        connection.request("POST", "/v1/models/digits:predict", pieces, encode_chunked=True)
    else:
        connection.request("POST", "/v1/models/digits:predict", body)
    response = connection.getresponse()
    assert response.status == 413
    assert f"larger than {LIMIT} bytes" in json.loads(response.read())["error"]
    # and the connection is still good
    answer = here.ask(
        "POST", "/v1/models/digits:predict", {"instances": [ROW]}, connection=connection
    )
    assert answer.status == 200
    connection.close()


def test_a_body_far_above_the_limit_is_not_even_read(here: RunningHost) -> None:
    with socket.create_connection(("127.0.0.1", here.port)) as sock:
        sock.sendall(b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\n")
        sock.sendall(b"Content-Length: 99999999999\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_exactly_the_limit_is_taken(here: RunningHost) -> None:
    body = json.dumps({"instances": [ROW]}).encode().ljust(LIMIT)
    assert here.predict("digits", body).status == 200


def test_head_chunked_and_pipelined_requests_work(here: RunningHost) -> None:
    connection = here.connect()
    head = here.ask("HEAD", "/v1/models/digits", connection=connection)
    assert (head.status, head.body) == (200, b"")
    connection.request(
        "POST",
        "/v1/models/digits:predict",
        iter([b'{"instances": [', json.dumps(ROW).encode(), b"]}"]),
        encode_chunked=True,
    )
    assert json.loads(connection.getresponse().read()) == {
        "predictions": linear(pixels(1)).tolist()
    }
    connection.close()
    body = json.dumps({"instances": [ROW]}).encode()
    one = b"POST /v1/models/%s:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    with socket.create_connection(("127.0.0.1", here.port)) as sock:
        sock.sendall(
            b"".join(one % (slot, len(body), body) for slot in (b"digits", b"nobody", b"lite"))
        )
        received = b""
        while received.count(b'{"predictions"') < 2:
            piece = sock.recv(65536)
            assert piece
            received += piece
    assert [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]


def test_a_client_that_hangs_up_in_the_middle_harms_nobody(here: RunningHost) -> None:
    with socket.create_connection(("127.0.0.1", here.port)) as sock:
        sock.sendall(
            b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
        )
    assert here.predict("digits", {"instances": [ROW]}).status == 200


def test_a_body_that_does_not_come_is_408(tmp_path: Path) -> None:
    with running(request_s=0.3) as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        for path in (b"/v1/models/digits:predict", b"/v2/repository/index"):
            with socket.create_connection(("127.0.0.1", here.port), timeout=30) as sock:
                sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{" % path)
                with sock.makefile("rb") as answer:
                    said = answer.read()  # to the end: the connection is closed
            assert said.startswith(b"HTTP/1.1 408 ")
            assert b"did not arrive within 0.3 s" in said


def test_a_full_queue_is_503_with_retry_after(tmp_path: Path) -> None:
    with running(queue=2) as here, ThreadPoolExecutor(8) as pool:
        here.do(here.host.activate((asked_spec(tmp_path, "busy.onnx", 1),)))
        asked = [pool.submit(here.predict, "busy", {"instances": [[300]]}) for _ in range(8)]
        answers = [future.result() for future in asked]
        refused = [answer for answer in answers if answer.status == 503]
        # two with the worker, two that wait; whoever came when one had finished was lucky
        assert 1 <= len(refused) <= 4
        assert {answer.status for answer in answers} == {200, 503}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert "2 requests wait for busy" in refused[0].json()["error"]


def test_no_worker_in_time_is_503_and_not_ready(tmp_path: Path) -> None:
    with running(deadline_s=1.0) as here:
        spec = linear_spec(tmp_path)
        here.do(here.host.activate((spec,)))
        model_path(spec).write_bytes(b"rotten")  # so that no new worker loads
        pid = here.host.worker_pids["digits"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: here.ask("GET", "/readyz").status == 503)
        assert here.ask("GET", "/readyz").json() == {"ready": False, "waiting_for": ["digits"]}
        answer = here.predict("digits", {"instances": [ROW]})
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        state = here.ask("GET", "/v1/models/digits").json()["model_version_status"][0]["state"]
        assert state == "LOADING"
        assert here.stats("digits").ready is False


def test_the_unix_socket_is_for_owner_and_group_and_serves_the_same(tmp_path: Path) -> None:
    path = tmp_path / "serve.sock"
    with running(listen=("127.0.0.1:0", f"unix:{path}")) as here:
        assert path.stat().st_mode & 0o777 == 0o660
        here.do(here.host.activate((linear_spec(tmp_path),)))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET /v1/models/digits HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with sock.makefile("rb") as answer:
                assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
    assert not path.exists()
