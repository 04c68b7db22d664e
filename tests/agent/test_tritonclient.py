"""The Open Inference Protocol v2 by its own client, tritonclient, which a device does not need."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgefleet_agent.serving.datatypes import OIP
from edgefleet_contract import __version__
from tests.agent.hosting import RunningHost
from tests.agent.models import linear, pixels
from tests.agent.test_serving_oip_v2 import KINDS, array, asked, every_kind, infer, small

triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
InferenceServerException = triton.InferenceServerException


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    with every_kind(tmp_path_factory.mktemp("models")) as running_host:
        yield running_host


@pytest.fixture
def client(here: RunningHost) -> Iterator[triton.InferenceServerClient]:
    """The protocol's reference client."""
    with triton.InferenceServerClient(f"127.0.0.1:{here.port}") as client:
        yield client


def tensor(name: str, value: np.ndarray, datatype: str, *, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(value.shape), datatype)
    return made.set_data_from_numpy(value, binary_data=binary)


def test_the_official_client_finds_the_server_and_its_models(
    client: triton.InferenceServerClient,
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("digits", "6")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata() == {
        "name": "edgefleet",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    for version in ("", "7"):
        assert client.get_model_metadata("digits", version) == {
            "name": "digits",
            "versions": ["7"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
        }
    index = client.get_model_repository_index()
    assert index[0] == {"name": "digits", "version": "7", "state": "READY", "reason": ""}
    assert len(index) == 9
    with pytest.raises(InferenceServerException, match="model 'nobody' is not served here"):
        client.get_model_metadata("nobody")


@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "json in"])
@pytest.mark.parametrize("given", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("slot", ["digits", "lite", "small", "pick", "text"])
def test_the_official_client_gets_the_models_answers(
    client: triton.InferenceServerClient, slot: str, sent: bool, given: bool
) -> None:
    asked, expected = {
        "digits": (("x", pixels(3), "FP32"), {"y": linear(pixels(3))}),
        "lite": (("x", pixels(2), "FP32"), {"y": linear(pixels(2))}),
        "small": (("x", np.eye(2, 64, dtype=np.int8), "INT8"), {"y": small(np.eye(2, 64))}),
        "pick": (("i", np.array([2, 0]), "INT64"), {"y": np.array([30, 10], np.float32)}),
        "text": (
            ("word", np.array(["dog", "naïve"], object), "BYTES"),
            {"class": np.array([2, -1]), "echo": np.array(["dog", "naïve"], object)},
        ),
    }[slot]
    result = client.infer(
        slot,
        [tensor(*asked, binary=sent)],
        outputs=[triton.InferRequestedOutput(name, binary_data=given) for name in expected],
        request_id="42",
        timeout=5_000_000,
        priority=1,
    )
    head = result.get_response()
    assert (head["id"], head["model_name"]) == ("42", slot)
    for name, values in expected.items():
        found = result.as_numpy(name)
        assert found.shape == values.shape
        if values.dtype != object:
            assert found.dtype == values.dtype
            assert np.array_equal(found, values)
        else:
            told = [item.decode() if isinstance(item, bytes) else item for item in found]
            assert told == values.tolist()


@pytest.mark.parametrize("binary", [True, False])
def test_every_dtype_goes_through_and_comes_back(
    client: triton.InferenceServerClient, binary: bool
) -> None:
    # The client cannot say half floats in JSON.
    inputs = [
        tensor(dtype, array(dtype), OIP[dtype], binary=binary or dtype == "float16")
        for dtype in KINDS
    ]
    outputs = [triton.InferRequestedOutput(f"{d}_too", binary_data=binary) for d in KINDS]
    result = client.infer("kinds", inputs, outputs=outputs)
    for dtype, value in KINDS.items():
        found = result.as_numpy(f"{dtype}_too").tolist()
        if dtype == "string" and binary:
            found = [[item.decode() for item in row] for row in found]
        assert found == value, dtype


def test_without_a_word_about_outputs_all_are_given_in_the_client_s_format(
    here: RunningHost, client: triton.InferenceServerClient
) -> None:
    ones = np.ones((1, 2), np.float32)
    inputs = [tensor("b", ones * 3, "FP32", binary=True), tensor("a", ones, "FP32", binary=False)]
    result = client.infer("pair", inputs)
    assert result.as_numpy("sum").tolist() == [[4.0, 4.0]]
    assert result.as_numpy("product").tolist() == [[3.0, 3.0]]
    answer = infer(here, "digits", asked("x", "FP32", [1, 64], data=[0] * 64))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["edgefleet-model-version"] == "7"
    assert answer.json() == {
        "model_name": "digits",
        "model_version": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 10], "data": [1.0] * 10}],
    }
