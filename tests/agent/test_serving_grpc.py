"""The Open Inference Protocol by gRPC, asked by Triton's own client, served by real processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract.errors import OperatorError
from tests.agent.hosting import RunningHost, running, until
from tests.agent.models import linear, linear_spec, pixels, tflite_spec
from tests.ports import free_port

grpc = pytest.importorskip("grpc")
pytest.importorskip("tritonclient")
pytest.importorskip("google.protobuf")

import tritonclient.grpc as triton  # noqa: E402  # only where it is installed
from google.protobuf import json_format  # noqa: E402
from tritonclient.grpc import service_pb2  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

from edgefleet_agent.serving.grpc_door import BadMessage, model_of  # noqa: E402
from edgefleet_agent.serving.grpc_messages import MESSAGES, SERVICE  # noqa: E402


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningHost, Any, str]]:
    folder, address = tmp_path_factory.mktemp("grpc"), f"127.0.0.1:{free_port()}"
    with running(grpc=address, max_body_bytes=2**20) as here:
        specs = (linear_spec(folder), tflite_spec(folder, slot="lite"))
        assert here.do(here.host.activate(specs)) is None
        with triton.InferenceServerClient(address) as client:
            yield here, client, address


def ask(client: Any, x: np.ndarray, slot: str = "digits", version: str = "") -> np.ndarray:
    tensor = triton.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    found: np.ndarray = client.infer(slot, [tensor], model_version=version).as_numpy("y")
    return found


def typed(x: list[float], **more: Any) -> Any:
    """A request with typed contents, which Triton's client never sends."""
    request = service_pb2.ModelInferRequest(model_name="digits", **more)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, len(x)])
    tensor.contents.fp32_contents.extend(x)
    return request


def raw_call(address: str, body: bytes) -> bytes:
    with grpc.insecure_channel(address) as channel:
        answer: bytes = channel.unary_unary(f"/{SERVICE}/ModelInfer")(body, timeout=30)
        return answer


def test_messages_are_those_of_the_protocol() -> None:
    """Field by field as Triton's client has them: number, kind, and whether it is a list."""
    nested = {
        "TensorMetadata": service_pb2.ModelMetadataResponse.TensorMetadata,
        "ModelIndex": service_pb2.RepositoryIndexResponse.ModelIndex,
        "InferInputTensor": service_pb2.ModelInferRequest.InferInputTensor,
        "InferRequestedOutputTensor": service_pb2.ModelInferRequest.InferRequestedOutputTensor,
        "InferOutputTensor": service_pb2.ModelInferResponse.InferOutputTensor,
        "Parameter": None,  # the entry of a map
    }
    for name, ours in MESSAGES.items():
        theirs = nested[name] if name in nested else getattr(service_pb2, name)
        if theirs is None:
            continue
        known = {field.name: field for field in theirs.DESCRIPTOR.fields}
        for field in ours.DESCRIPTOR.fields:
            other = known[field.name]
            assert (field.number, field.type) == (other.number, other.type), field.full_name


def test_a_triton_client_gets_what_the_model_gives(served: tuple[RunningHost, Any, str]) -> None:
    _, client, _ = served
    for rows in (1, 3, 500):
        for slot in ("digits", "lite"):
            assert np.array_equal(ask(client, pixels(rows), slot), linear(pixels(rows)))
    assert np.array_equal(ask(client, pixels(2), version="1"), linear(pixels(2)))


def test_a_triton_client_finds_every_page(served: tuple[RunningHost, Any, str]) -> None:
    here, client, _ = served
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    told = json_format.MessageToDict(client.get_model_metadata("digits"))
    assert told == here.ask("GET", "/v2/models/digits").json() | {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", "64"]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": ["-1", "10"]}],
    }
    assert client.get_server_metadata().name == "edgefleet"
    index = client.get_model_repository_index()
    assert {(m.name, m.version, m.state) for m in index.models} == {
        ("digits", "1", "READY"),
        ("lite", "1", "READY"),
    }


def test_typed_contents_are_read_as_raw_ones(served: tuple[RunningHost, Any, str]) -> None:
    _, _, address = served
    x = pixels(1)
    body = typed(x[0].tolist(), id="mine").SerializeToString()
    answer = service_pb2.ModelInferResponse.FromString(raw_call(address, body))
    assert (answer.id, answer.model_name, answer.model_version) == ("mine", "digits", "1")
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(1, 10)
    assert np.array_equal(found, linear(x))


@pytest.mark.parametrize(
    ("slot", "version", "shape", "code", "says"),
    [
        ("none", "", (1, 64), "NOT_FOUND", "is not served here"),
        ("digits", "7", (1, 64), "NOT_FOUND", "version '7'"),
        ("digits", "", (1, 63), "INVALID_ARGUMENT", "has shape [1, 63], expected [-1, 64]"),
        ("digits", "", (5000, 64), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_a_refusal_has_the_code_of_its_kind(
    served: tuple[RunningHost, Any, str],
    slot: str,
    version: str,
    shape: tuple[int, int],
    code: str,
    says: str,
) -> None:
    _, client, _ = served
    with pytest.raises(InferenceServerException, match=code) as refused:
        ask(client, np.zeros(shape, np.float32), slot, version)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.inputs[0].contents.fp32_contents.append(1), "65 values"),
        (lambda r: r.raw_input_contents.append(b"1234"), "both contents and raw"),
        (lambda r: setattr(r.inputs[0], "datatype", "FP16"), "send raw_input_contents"),
        (lambda r: setattr(r.inputs[0], "datatype", "INT8"), "expected 'FP32'"),
        (lambda r: r.inputs.pop(), "'x' is missing"),
        (lambda r: r.parameters["shared_memory_region"].CopyFrom(text("x")), "not served here"),
    ],
)
def test_a_bad_message_is_told_what_is_wrong(
    served: tuple[RunningHost, Any, str], change: Any, says: str
) -> None:
    _, _, address = served
    request = typed([0.0] * 64)
    change(request)
    with pytest.raises(grpc.RpcError) as refused:
        raw_call(address, request.SerializeToString())
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert says in refused.value.details()


def text(value: str) -> Any:
    return service_pb2.InferParameter(string_param=value)


def test_bytes_that_are_no_message_harm_nobody(served: tuple[RunningHost, Any, str]) -> None:
    here, client, address = served
    whole = typed([0.0] * 64).SerializeToString()
    for body in (b"\xff" * 40, whole[:-3], b"\x0a\x06digits" + b"\x3a\xff\xff\xff\xff\x0f"):
        with pytest.raises(grpc.RpcError) as refused:
            raw_call(address, body)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert np.array_equal(ask(client, pixels(1)), linear(pixels(1)))
    assert here.stats("digits").restarts == 0


@given(st.binary(max_size=300))
def test_any_bytes_name_a_model_or_are_refused(body: bytes) -> None:
    try:
        places = model_of(body)
    except BadMessage:
        return
    assert set(places) <= {"model", "version"}


@given(st.text(max_size=40), st.text(max_size=20), st.lists(st.binary(max_size=50), max_size=4))
def test_the_model_is_found_in_any_message(name: str, version: str, raw: list[bytes]) -> None:
    try:
        request = service_pb2.ModelInferRequest(
            model_name=name, model_version=version, raw_input_contents=raw
        )
    except (ValueError, UnicodeEncodeError):  # half a character
        return
    expected = {"model": name} | ({"version": version} if version else {})
    assert model_of(request.SerializeToString()) == expected


def test_a_swap_and_killed_workers_fail_no_call(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with running(grpc=address) as here, ThreadPoolExecutor(2) as pool:
        here.do(here.host.activate((linear_spec(tmp_path, 1),)))
        over: list[bool] = []
        answered: list[bool] = []

        def load() -> None:
            with triton.InferenceServerClient(address) as client:
                while not over:
                    found = ask(client, pixels(2))
                    answered.append(any(np.array_equal(found, right[v]) for v in (1, 2)))

        def more() -> None:
            enough = len(answered) + 10
            until(lambda: len(answered) >= enough)

        right = {version: linear(pixels(2), version) for version in (1, 2)}
        clients = [pool.submit(load) for _ in range(2)]
        for version in (2, 3, 4, 5):
            more()
            here.do(here.host.activate((linear_spec(tmp_path, version),)))
            more()
            os.kill(here.host.worker_pids["digits"], signal.SIGKILL)
            until(lambda: here.stats("digits").restarts == 1)
            until(lambda: here.stats("digits").ready)
        more()
        over.append(True)
        for client in clients:
            client.result()
        assert all(answered)
        assert here.stats("digits").failures == 1  # the death of its worker, and no request


def test_a_unix_socket_is_for_the_group(tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    with running(grpc=f"unix:{path}") as here:
        here.do(here.host.activate((linear_spec(tmp_path),)))
        assert path.stat().st_mode & 0o777 == 0o660
        with triton.InferenceServerClient(f"unix:{path}") as client:
            assert np.array_equal(ask(client, pixels(1)), linear(pixels(1)))


@pytest.mark.parametrize("address", ["0.0.0.0:8001", "nowhere", "127.0.0.1:99999"])
def test_an_address_that_is_not_for_grpc_is_the_operators_to_mend(address: str) -> None:
    with pytest.raises(OperatorError, match="listen on"), running(grpc=address):
        raise AssertionError("it must not start")


def test_metrics_count_calls_of_every_protocol_alike(served: tuple[RunningHost, Any, str]) -> None:
    here, client, _ = served
    before = here.stats("lite").requests
    ask(client, pixels(1), "lite")
    here.predict("lite", json.dumps({"instances": pixels(1).tolist()}).encode())
    until(lambda: here.stats("lite").requests == before + 2)
