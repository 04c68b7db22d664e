"""Requests that are run together: the same answers as alone, in order, and nobody pays for another.

The workers are real, and die of real signals: `kill -9` under load, and a division that no x86
processor has an answer for.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_agent.ports import ModelSpec
from edgefleet_agent.runtime import slots
from edgefleet_agent.runtime.answering import Answerer
from edgefleet_agent.runtime.batching import groups, join, rows, split, why_not_joined
from edgefleet_agent.runtime.caller import Caller
from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.runtime.frames import Ask, Frame, header
from edgefleet_agent.runtime.golden import read_golden
from edgefleet_agent.runtime.inbox import Inbox
from edgefleet_agent.runtime.loading import job_for
from edgefleet_agent.runtime.onnx_engine import OnnxSession
from edgefleet_agent.serving.config import ModelConfig
from edgefleet_agent.serving.question import Question
from edgefleet_contract.bundle import TensorSpec
from edgefleet_contract.errors import OperatorError
from tests.agent.hosting import Load, running, until
from tests.agent.models import golden_path, linear, linear_spec, make_spec, model_path, pixels
from tests.agent.test_stateful import memory_spec, tally_spec

traps = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only x86 traps at -2^63 / -1"
)
TOGETHER = ModelConfig(max_batch=8, max_delay_ms=5)
PLACE, Y = TensorSpec("i", "int64", (-1,)), TensorSpec("y", "float32", (-1,))
SHAPES = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([(2,), (3,), (2, 2)])), max_size=6)


def pick_spec(folder: Path) -> ModelSpec:
    """A table of three: whoever asks for a fourth is refused by the runtime."""
    return make_spec(
        folder,
        "pick.onnx",
        {PLACE: np.array([0, 2])},
        {Y: np.array([10, 30], np.float32)},
        slot="pick",
    )


def question(feeds: Tensors) -> Question:
    return Question((feeds,), lambda _: b"")


@given(SHAPES)
def test_what_is_joined_comes_apart_as_it_was(shapes: list[tuple[int, tuple[int, ...]]]) -> None:
    draw = np.random.default_rng(0).random
    calls: list[Tensors] = [{"a": draw((n, *size)), "b": draw((n, 1))} for n, size in shapes]
    found = groups([question(call) for call in calls])
    specs = (TensorSpec("a", "float64", (-1, -1)), TensorSpec("b", "float64", (-1, 1)))
    for places in found:
        assert len({calls[i]["a"].shape[1:] for i in places}) == 1
        parts = split(join([calls[i] for i in places]), [rows(calls[i]) for i in places], specs)
        assert parts is not None
        for i, part in zip(places, parts, strict=True):
            assert all(np.array_equal(part[name], calls[i][name]) for name in "ab")
    alone = set(range(len(calls))) - {i for places in found for i in places}
    for i in alone:  # there was no other of its shape
        assert [size for _, size in shapes].count(shapes[i][1]) == 1


def test_outputs_without_a_row_for_each_cannot_be_told_apart() -> None:
    spec = TensorSpec("y", "float32", (-1,))
    assert split({"y": np.zeros(2, np.float32)}, [1, 2], (spec,)) is None
    assert rows({"a": np.zeros((2, 1)), "b": np.zeros((3, 1))}) == 0


def test_only_models_that_show_it_are_run_together(tmp_path: Path) -> None:
    def why(spec: ModelSpec) -> str:
        return why_not_joined(spec.variant, read_golden(golden_path(spec), spec.variant))

    assert why(pick_spec(tmp_path)) == ""
    assert why(tally_spec(tmp_path)) == "it is stateful"
    assert why(memory_spec(tmp_path)) == "it is stateful"
    x = pixels(3)
    fixed = (TensorSpec("x", "float32", (1, 64)), TensorSpec("y", "float32", (1, 10)))
    one_by_one = make_spec(tmp_path, "fixed.onnx", {fixed[0]: x}, {fixed[1]: linear(x, 0)})
    assert why(one_by_one) == "the batch axis of 'x' is not free"
    single = make_spec(tmp_path, "pick.onnx", {PLACE: np.array([0])}, {Y: np.ones(1, np.float32)})
    assert "golden vectors do not show" in why(single)


@contextmanager
def inbox(limit: int, delay_s: float) -> Iterator[tuple[socket.socket, Inbox]]:
    front, worker = socket.socketpair()
    fd = slots.make()
    with front, worker:
        yield front, Inbox(Caller(worker, slots.Slots(fd)), limit=limit, delay_s=delay_s)
    os.close(fd)


def send(front: socket.socket, *ids: int) -> None:
    for id_ in ids:
        front.sendall(header(id_, Ask.INFER_V2, 3) + b"abc")


def taken(box: Inbox) -> list[int]:
    return [frame.id for frame in box.take() or ()]


def test_what_has_come_is_taken_and_nobody_waits_alone() -> None:
    with inbox(3, delay_s=30) as (front, box):
        send(front, 1)
        start = time.monotonic()
        assert taken(box) == [1]
        assert time.monotonic() - start < 15
        send(front, 2, 3, 4, 5)
        found = taken(box)
        while len(found) < 4:
            found += taken(box)
        assert found == [2, 3, 4, 5]


def test_who_had_company_waits_for_more_but_not_for_long() -> None:
    with inbox(8, delay_s=0.05) as (front, box), ThreadPoolExecutor() as pool:
        send(front, 1, 2)
        assert taken(box) == [1, 2]
        waiting = pool.submit(taken, box)
        send(front, 3)
        assert waiting.result(15)[:1] == [3]
        send(front, 4)
        assert taken(box) == [4]


def test_the_last_requests_of_a_front_are_answered_and_then_it_is_gone() -> None:
    with inbox(8, delay_s=30) as (front, box):
        send(front, 1, 2)
        front.shutdown(socket.SHUT_WR)
        assert taken(box) == [1, 2]
        assert box.take() is None


def test_one_run_answers_all_and_a_bad_one_is_refused_alone(tmp_path: Path) -> None:
    class Counted(OnnxSession):
        runs = 0

        def run(self, feeds: Tensors) -> Tensors:
            self.runs += 1
            return super().run(feeds)

    spec = pick_spec(tmp_path)
    session = Counted(model_path(spec).read_bytes(), threads=1)
    answerer = Answerer(session, job_for(spec, threads=1))

    def ask(*bodies: object) -> list[tuple[int, object]]:
        frames = [Frame(i, Ask.PREDICT_V1, json.dumps(b).encode()) for i, b in enumerate(bodies)]
        answers = list(chain.from_iterable(answerer.answer_together(frames)))
        assert [frame.id for frame, _ in answers] == list(range(len(bodies)))
        told = [(said.code, json.loads(said.body)) for _, said in answers]
        return [(code, body.get("predictions")) for code, body in told]

    assert ask({"instances": [0]}, {"instances": [1, 2]}, {"instances": [2]}) == [
        (200, [10]),
        (200, [20, 30]),
        (200, [30]),
    ]
    assert session.runs == 1
    assert ask({"instances": [0]}, {"instances": "no"}, {"instances": [1]}) == [
        (200, [10]),
        (400, None),
        (200, [20]),
    ]
    assert session.runs == 2
    found = ask({"instances": [0]}, {"instances": [99]}, {"instances": [1]})
    assert (found[0], found[2]) == ((200, [10]), (200, [20]))
    assert found[1][0] in (400, 500)
    assert session.runs == 6


def test_many_clients_get_each_their_own_answer(tmp_path: Path) -> None:
    with running(models={"digits": TOGETHER}) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None

        def ask(i: int) -> None:
            connection = here.connect()
            for n in range(40):
                x = np.full((1 + n % 3, 64), i * 40 + n, np.float32)
                body = {"instances": x.tolist()}
                path = "/v1/models/digits:predict"
                answer = here.ask("POST", path, body, connection=connection)
                assert answer.json()["predictions"] == linear(x).tolist()
            connection.close()

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(ask, i) for i in range(8)]:
                done.result()


def test_a_killed_worker_fails_none_of_those_that_ran_together(tmp_path: Path) -> None:
    body = json.dumps({"instances": np.zeros((1, 64)).tolist()}).encode()
    with running(models={"digits": TOGETHER}) as here:
        assert here.do(here.host.activate((linear_spec(tmp_path),))) is None
        with Load(here, "/v1/models/digits:predict", body, clients=8) as load:
            for _ in range(2):
                load.more(100)
                os.kill(here.host.worker_pids["digits"], signal.SIGKILL)
                load.more(100)
                until(lambda: here.stats("digits").ready)
        assert not load.failures
        assert here.stats("digits").restarts == 2


@traps
def test_who_kills_the_worker_is_told_and_the_neighbours_are_answered(tmp_path: Path) -> None:
    """In int64, which no processor divides as a vector: it traps whoever its neighbours are.

    The worker is stopped until all have come, so they do run together, the bad one in the middle.
    """
    x = np.array([[7, 2], [9, 3]], np.int64)
    spec = make_spec(
        tmp_path,
        "divide_long.onnx",
        {TensorSpec("x", "int64", (-1, 2)): x},
        {TensorSpec("y", "int64", (-1, 1)): x[:, :1] // x[:, 1:]},
        slot="divide",
    )
    asked = [[[12, n]] for n in (1, 2, 3)] + [[[-(2**63), -1]]] + [[[12, n]] for n in (4, 6, 12)]
    with running(models={"divide": TOGETHER}) as here, ThreadPoolExecutor(8) as pool:
        assert here.do(here.host.activate((spec,))) is None
        pid = here.host.worker_pids["divide"]
        os.kill(pid, signal.SIGSTOP)
        answers = []
        for count, rows in enumerate(asked, 1):
            answers.append(pool.submit(here.predict, "divide", {"instances": rows}))
            line = f'edgefleet_outstanding{{model="divide",version="1"}} {count}\n'.encode()
            until(lambda line=line: line in here.ask("GET", "/metrics").body)
        os.kill(pid, signal.SIGCONT)
        found = [answer.result() for answer in answers]
        assert [answer.status for answer in found] == [200] * 3 + [500] + [200] * 3
        assert "died twice" in found[3].json()["error"]
        good = [answer.json()["predictions"][0][0] for answer in found if answer.status == 200]
        assert good == [12, 6, 4, 3, 2, 1]
        until(lambda: here.stats("divide").ready)
        assert here.stats("divide").restarts == 2


def test_a_stateful_model_is_never_run_together(tmp_path: Path) -> None:
    spec = replace(memory_spec(tmp_path), slot="digits")
    with running(models={"digits": TOGETHER}) as here:
        assert here.do(here.host.activate((spec,))) is None

        def stream(name: int) -> list[float]:
            found = []
            for n in range(20):
                body = {"instances": [[name, 0]], "sequence_id": name, "sequence_start": n == 0}
                found.append(here.predict("digits", body).json()["predictions"][0][0])
            return found

        with ThreadPoolExecutor(8) as pool:
            streams = [pool.submit(stream, name) for name in range(1, 9)]
            for name, done in enumerate(streams, 1):
                assert done.result() == [name * (n + 1) for n in range(20)]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"max_batch": 0}, "max_batch of a model is 0"),
        ({"max_delay_ms": -1}, "max_delay_ms of a model is -1"),
        ({"cache_mib": -1}, "cache_mib of a model is -1"),
        ({"max_sequences": -1}, "max_sequences of a model is -1"),
        ({"sequence_idle_s": 0}, "sequence_idle_s of a model is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, int], says: str) -> None:
    with pytest.raises(OperatorError, match=says):
        ModelConfig(**setting)  # type: ignore[arg-type]  # a float takes an int
