"""Models whose answers depend on what was asked before: real workers, over HTTP, with real deaths.

`tally.onnx` takes and gives its state as tensors, of floats and of text; `memory.tflite` keeps it
in a resource variable. Both sum up what they are sent.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet_agent.client import AsyncClient, Client, SequenceLost
from edgefleet_agent.ports import Failed, ModelSpec, ShadowReport, TrialReport
from edgefleet_agent.runtime.trial_runner import try_model
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.graph import Program, StatePair
from edgefleet_contract.reasons import Reason
from tests.agent.hosting import Answered, RunningHost, running, until
from tests.agent.models import make_spec, with_golden

WORD, LAST = TensorSpec("word", "string", (1,)), TensorSpec("last", "string", (-1,))
BEFORE, NEXT_LAST = TensorSpec("before", "string", (1,)), TensorSpec("next_last", "string", (-1,))
TOTAL, NEXT = TensorSpec("total", "float32", (-1, 2)), TensorSpec("next_total", "float32", (1, 2))
ONE_X, ONE_Y = TensorSpec("x", "float32", (1, 2)), TensorSpec("y", "float32", (1, 2))
TALLY = Program(state=(StatePair("total", "next_total"), StatePair("last", "next_last")))
HIDDEN = Program(hidden_state=True)


def programmed(spec: ModelSpec, program: Program) -> ModelSpec:
    return replace(spec, variant=replace(spec.variant, program=program))


def tally_spec(folder: Path, version: int = 1, *, batch: int = 1) -> ModelSpec:
    """Declared with a batch of 1, or with a free one. Its golden vectors hold the state too."""
    x, word = (replace(spec, shape=(batch, *spec.shape[1:])) for spec in (ONE_X, WORD))
    numbers, words = np.array([[1, 2], [3, 4]], np.float32), np.array(["a", "b"])
    total, said = np.array([[0, 0], [1, 2]], np.float32), np.array(["", "a"])
    spec = make_spec(
        folder,
        "tally.onnx",
        {x: numbers[:, None], word: words[:, None], TOTAL: total[:, None], LAST: said[:, None]},
        {
            ONE_Y: (numbers + total)[:, None],
            BEFORE: said[:, None],
            NEXT: (numbers + total)[:, None],
            NEXT_LAST: words[:, None],
        },
        slot="tally" if batch == 1 else "free",
        version=version,
    )
    return programmed(spec, TALLY)


def memory_spec(folder: Path, version: int = 1) -> ModelSpec:
    """The golden vectors are one sequence: sums of 1 + 2 + 3."""
    x = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
    spec = make_spec(
        folder,
        "memory.tflite",
        {ONE_X: x},
        {ONE_Y: np.cumsum(x, axis=0)},
        slot="memory",
        version=version,
    )
    return programmed(spec, HIDDEN)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """Few sequences are kept, and each for long."""
    folder = tmp_path_factory.mktemp("models")
    few = ModelConfig(max_sequences=3, sequence_idle_s=600)
    with running(models={"tally": few, "memory": few}) as here:
        specs = (tally_spec(folder), tally_spec(folder, batch=-1), memory_spec(folder))
        assert here.do(here.host.activate(specs)) is None
        yield here


def ask(here: RunningHost, slot: str, *numbers: float, **sequence: object) -> Answered:
    """A request in TensorFlow Serving's words, with a row a number."""
    rows: list[Any] = [[n, 10 * n] for n in numbers]
    if slot != "memory":
        rows = [{"x": row, "word": f"{row[0]:g}"} for row in rows]
    return here.predict(slot, {"instances": rows, **sequence})


def sums(answered: Answered) -> list[float]:
    """The first element of each row of `y`."""
    assert answered.status == 200, answered.body
    rows = answered.json()["predictions"]
    return [(row["y"] if isinstance(row, dict) else row)[0] for row in rows]


slots = pytest.mark.parametrize("slot", ["tally", "memory"])


@slots
def test_a_sequence_goes_on_where_it_stood_and_others_do_not_disturb_it(
    here: RunningHost, slot: str
) -> None:
    assert sums(ask(here, slot, 1, sequence_id="a", sequence_start=True)) == [1]
    assert sums(ask(here, slot, 100, sequence_id=2, sequence_start=True)) == [100]
    assert sums(ask(here, slot, 2, sequence_id="a")) == [3]
    assert sums(ask(here, slot, 5)) == [5]
    assert sums(ask(here, slot, 200, sequence_id="2")) == [300]
    assert sums(ask(here, slot, 3, sequence_id="a", sequence_end=True)) == [6]
    assert ask(here, slot, 3, sequence_id="a").status == 409
    assert sums(ask(here, slot, 4, sequence_id="a", sequence_start=True)) == [4]


@slots
def test_a_request_without_a_sequence_is_one_of_its_own(here: RunningHost, slot: str) -> None:
    assert sums(ask(here, slot, 1, 2, 3)) == [1, 3, 6]
    assert sums(ask(here, slot, 1, 2, 3)) == [1, 3, 6]


@slots
def test_rows_of_a_request_follow_each_other(here: RunningHost, slot: str) -> None:
    assert sums(ask(here, slot, 1, 2, sequence_id=9, sequence_start=True)) == [1, 3]
    assert sums(ask(here, slot, 3, 4, sequence_id=9, sequence_end=True)) == [6, 10]


def test_text_is_carried_on_too_and_is_empty_at_first(here: RunningHost) -> None:
    answers = ask(here, "tally", 1, 2, 3).json()["predictions"]
    assert [row["before"] for row in answers] == ["", "1", "2"]


@slots
def test_clients_do_not_see_the_state(here: RunningHost, slot: str) -> None:
    told = here.ask("GET", f"/v2/models/{slot}").json()
    public = ["x", "word"] if slot == "tally" else ["x"]
    assert [tensor["name"] for tensor in told["inputs"]] == public
    assert "next_total" not in [tensor["name"] for tensor in told["outputs"]]
    body = {"inputs": {"x": [[1, 2]], "total": [[1, 2]]}}
    assert here.predict(slot, body).status == 400


@slots
def test_a_sequence_that_did_not_start_is_a_conflict_and_not_zeros(
    here: RunningHost, slot: str
) -> None:
    answer = ask(here, slot, 1, sequence_id="never")
    assert answer.status == 409
    assert "sequence 'never' is not known here" in answer.json()["error"]
    assert "start it anew" in answer.json()["error"]


@slots
def test_the_one_that_was_idle_longest_gives_way(here: RunningHost, slot: str) -> None:
    for name in "pqrs":  # three are kept
        assert ask(here, slot, 1, sequence_id=name, sequence_start=True).status == 200
    assert ask(here, slot, 1, sequence_id="p").status == 409
    assert sums(ask(here, slot, 1, sequence_id="q")) == [2]


def test_a_request_that_fails_leaves_the_sequence_where_it_was(here: RunningHost) -> None:
    huge = 3e38
    assert sums(ask(here, "tally", 1, sequence_id=5, sequence_start=True)) == [1]
    wrong = here.predict("tally", {"instances": [[1]], "sequence_id": 5})
    assert wrong.status == 400
    failed = ask(here, "tally", huge / 10, huge / 10, sequence_id=5)  # infinite in its second row
    assert failed.status == 500
    assert sums(ask(here, "tally", 2, sequence_id=5)) == [3]


def test_a_session_that_keeps_state_cannot_go_back_so_its_sequence_ends(here: RunningHost) -> None:
    assert sums(ask(here, "memory", 1, sequence_id=5, sequence_start=True)) == [1]
    assert ask(here, "memory", "x", sequence_id=5).status == 400  # was not run
    assert ask(here, "memory", 3e37, 3e37, sequence_id=5).status == 500
    assert ask(here, "memory", 2, sequence_id=5).status == 409


def test_more_rows_than_the_state_has_are_the_clients_to_mend(here: RunningHost) -> None:
    columns = {"x": [[1, 2], [3, 4]], "word": ["a", "b"]}
    answer = here.predict("free", {"inputs": columns})
    assert answer.status == 400
    assert "'x' has 2 rows" in answer.json()["error"]
    assert here.predict("free", {"inputs": {"x": [[1, 2]], "word": ["a"]}}).status == 200


def test_the_open_inference_protocol_names_a_sequence_as_triton_does(here: RunningHost) -> None:
    def infer(x: float, **parameters: object) -> Answered:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [x, x]}
        body = {"inputs": [tensor], "parameters": parameters}
        return here.ask("POST", "/v2/models/memory/infer", body)

    start = infer(1, sequence_id=77, sequence_start=True, sequence_end=False)
    assert start.json()["outputs"][0]["data"] == [1, 1]
    assert infer(2, sequence_id=77).json()["outputs"][0]["data"] == [3, 3]
    assert infer(3).json()["outputs"][0]["data"] == [3, 3]
    last = {"inputs": [], "parameters": {"sequence_id": 77, "sequence_end": True}}
    ended = here.ask("POST", "/v2/models/memory/infer", last)
    assert (ended.status, ended.json()["outputs"]) == (200, [])
    assert infer(2, sequence_id=77).status == 409


def test_the_client_of_triton_streams(here: RunningHost) -> None:
    http = pytest.importorskip("tritonclient.http")
    tensor = http.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    with http.InferenceServerClient(f"127.0.0.1:{here.port}") as client:
        found = [
            client.infer(
                "memory", [tensor], sequence_id=42, sequence_start=i == 0, sequence_end=i == 2
            ).as_numpy("y")[0, 0]
            for i in range(3)
        ]
        assert found == [1, 2, 3]
        with pytest.raises(http.InferenceServerException, match="not known here"):
            client.infer("memory", [tensor], sequence_id=42)


def test_a_worker_that_dies_takes_its_sequences_along(tmp_path: Path) -> None:
    with running() as here:
        specs = (tally_spec(tmp_path), memory_spec(tmp_path))
        assert here.do(here.host.activate(specs)) is None
        for slot in ("tally", "memory"):
            assert sums(ask(here, slot, 1, sequence_id=1, sequence_start=True)) == [1]
            os.kill(here.host.worker_pids[slot], signal.SIGKILL)
            until(lambda slot=slot: here.stats(slot).restarts == 1)
            assert ask(here, slot, 2, sequence_id=1).status == 409
            assert sums(ask(here, slot, 2, sequence_id=1, sequence_start=True)) == [2]


def test_a_swap_begins_anew(tmp_path: Path) -> None:
    with running() as here:
        for make in (tally_spec, memory_spec):
            assert here.do(here.host.activate((make(tmp_path),))) is None
        for slot, make in (("tally", tally_spec), ("memory", memory_spec)):
            assert sums(ask(here, slot, 1, sequence_id=1, sequence_start=True)) == [1]
            assert here.do(here.host.activate((make(tmp_path, 2),))) is None
            answer = ask(here, slot, 2, sequence_id=1)
            assert (answer.status, answer.headers["edgefleet-model-version"]) == (409, "2")
            assert here.stats(slot).failures == 0


def test_an_idle_sequence_is_forgotten(tmp_path: Path) -> None:
    with running(models={"memory": ModelConfig(sequence_idle_s=0.001)}) as here:
        assert here.do(here.host.activate((memory_spec(tmp_path),))) is None
        assert ask(here, "memory", 1, sequence_id=1, sequence_start=True).status == 200
        until(lambda: ask(here, "memory", 1, sequence_id=1).status == 409)


def test_golden_vectors_of_a_model_that_keeps_state_are_one_sequence(tmp_path: Path) -> None:
    spec = memory_spec(tmp_path)
    assert isinstance(
        asyncio.run(try_model(spec, timeout_s=30, threads=1, data_mib=1024)), TrialReport
    )
    x = np.array([[1, 10], [2, 20]], np.float32)
    each_alone = with_golden(spec, {"input.0": x, "output.0": x})
    failed = asyncio.run(try_model(each_alone, timeout_s=30, threads=1, data_mib=1024))
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.GOLDEN_MISMATCH


def test_a_shadow_compares_what_belongs_to_no_sequence(tmp_path: Path) -> None:
    """It sees some of the requests of a sequence, so it could but give other answers to them."""
    with running() as here:
        assert here.do(here.host.activate((memory_spec(tmp_path),))) is None
        shadow = here.host.shadow(
            memory_spec(tmp_path, 2), seconds=2, share=1.0, min_requests=1, max_cpu_share=1.0
        )
        watching = asyncio.run_coroutine_threadsafe(shadow, here.loop)
        assert ask(here, "memory", 1, sequence_id=1, sequence_start=True).status == 200
        while not watching.done():
            assert ask(here, "memory", 2, sequence_id=1).status == 200
            assert ask(here, "memory", 1, 2).status == 200
        report = watching.result()
        assert isinstance(report, ShadowReport)
        assert (report.enough, report.errors, report.max_abs_diff) == (True, 0, 0)


@slots
def test_a_client_carries_a_sequence(here: RunningHost, slot: str) -> None:
    def feeds(n: float) -> dict[str, np.ndarray]:
        words = {"word": np.array([f"{n}"], object)} if slot == "tally" else {}
        return {"x": np.array([[n, n]], np.float32), **words}

    address = f"127.0.0.1:{here.port}"
    with Client(address) as client, client.sequence(slot) as one, client.sequence(slot) as two:
        assert [one.infer(feeds(n))["y"][0, 0] for n in (1, 2, 3)] == [1, 3, 6]
        assert two.infer(feeds(7))["y"][0, 0] == 7
        with pytest.raises(OperatorError, match="found"):
            one.infer({"nothing": np.zeros(1)})
        assert one.infer(feeds(4), last=True)["y"][0, 0] == 10
        assert one.infer(feeds(5))["y"][0, 0] == 5  # starts anew
        name = two.id
    assert ask(here, slot, 1, sequence_id=name).status == 409  # ended as the block was left

    async def stream() -> list[float]:
        async with AsyncClient(address) as client, client.sequence(slot) as one:
            return [float((await one.infer(feeds(n)))["y"][0, 0]) for n in (1, 2, 3)]

    assert asyncio.run(stream()) == [1, 3, 6]


def test_a_client_hears_that_its_sequence_is_lost(tmp_path: Path) -> None:
    x = np.ones((1, 2), np.float32)

    async def others(address: str, here: RunningHost) -> None:
        async with AsyncClient(address) as client, client.sequence("memory") as sequence:
            await sequence.infer(x)
            os.kill(here.host.worker_pids["memory"], signal.SIGKILL)
            with pytest.raises(SequenceLost):
                await sequence.infer(x)

    with running() as here:
        assert here.do(here.host.activate((memory_spec(tmp_path),))) is None
        address = f"127.0.0.1:{here.port}"
        with Client(address) as client, client.sequence("memory") as sequence:
            sequence.infer(x)
            os.kill(here.host.worker_pids["memory"], signal.SIGKILL)
            with pytest.raises(SequenceLost, match=r"not known here.*409"):
                sequence.infer(x)
            with pytest.raises(SequenceLost, match="what became of the last request"):
                sequence.infer(x)
            with client.sequence("memory") as anew:
                assert anew.infer(x)["y"][0, 0] == 1
        until(lambda: here.stats("memory").ready)
        asyncio.run(others(address, here))


def test_a_front_that_dies_is_asked_nothing_twice(tmp_path: Path) -> None:
    """The worker lives on and knows the sequence; the kept connection is found closed."""
    x = np.ones((1, 2), np.float32)
    with running() as here:
        assert here.do(here.host.activate((memory_spec(tmp_path),))) is None
        with Client(f"127.0.0.1:{here.port}") as client, client.sequence("memory") as sequence:
            assert sequence.infer(x)["y"][0, 0] == 1
            pid = here.host.front_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda: here.host.front_pid not in (None, pid))
            assert sequence.infer(x)["y"][0, 0] == 2
