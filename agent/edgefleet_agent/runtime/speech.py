"""The protocols that a worker understands: what reads and writes the bodies of each `Ask`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.runtime.frames import Ask
from edgefleet_agent.runtime.slots import Bytes
from edgefleet_agent.serving import oip_v2_bodies, rest_v1, rest_v1_scores
from edgefleet_agent.serving.bodies import Served
from edgefleet_agent.serving.question import Question


@dataclass(frozen=True, slots=True)
class Speech:
    """`read` makes a question of a request's body; `read_answer` finds the outputs in an answer's.

    `read` raises `BadBody`, saying what was expected and what was found.
    """

    read: Callable[[Bytes, Served], Question]
    read_answer: Callable[[Bytes], Tensors]


def _read_grpc(body: Bytes, model: Served) -> Question:
    from edgefleet_agent.serving import grpc_bodies  # brings protobuf with it, which few need

    return grpc_bodies.read(body, model)


def _read_grpc_answer(body: Bytes) -> Tensors:
    from edgefleet_agent.serving import grpc_bodies

    return grpc_bodies.read_answer(body)


SPEECHES: Final[dict[int, Speech]] = {
    Ask.PREDICT_V1: Speech(rest_v1.read, rest_v1.read_answer),
    Ask.CLASSIFY_V1: Speech(rest_v1_scores.classify, rest_v1_scores.read_scores),
    Ask.REGRESS_V1: Speech(rest_v1_scores.regress, rest_v1_scores.read_scores),
    Ask.INFER_V2: Speech(oip_v2_bodies.read, oip_v2_bodies.read_answer),
    Ask.INFER_GRPC: Speech(_read_grpc, _read_grpc_answer),
}
