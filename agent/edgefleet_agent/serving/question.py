"""What a body asks: the calls that answer it, the sequence that they continue, and how to tell.

Reading a body and running the model are two things: what reads it (`read` of each protocol) makes
a `Question`, and the worker decides how its calls are run: alone, with others, or with the state of
a sequence. Pure, and run in the worker, as all that reads bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgefleet_agent.runtime.engine import Tensors
from edgefleet_agent.serving.bodies import BadBody, kind

SEQUENCE_KEYS: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})
"""Triton's words, which both protocols use. [api-7.1]"""

_LONGEST_ID: Final = 128


@dataclass(frozen=True, slots=True)
class SequenceAsk:
    """Which sequence a request continues, whether it begins it, and whether it ends it."""

    id: str
    start: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A body that was read. `calls` are run in their order.

    `tell` makes the answer's body of their outputs, joined along the batch axis (`join_results`).
    It raises `BadOutput` where they cannot be told.
    """

    calls: tuple[Tensors, ...]
    tell: Callable[[Tensors], bytes]
    sequence: SequenceAsk | None = None


def read_sequence(value: Mapping[str, Any]) -> SequenceAsk | None:
    """The sequence that an object names; None where it names none (or 0, or empty text).

    A number and its digits name the same sequence.

    Raises:
        BadBody: `sequence_id` is no whole number or text, or a flag is neither true nor false.
    """
    flags = {name: value.get(name, False) for name in ("sequence_start", "sequence_end")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise BadBody(f"{name!r} is {kind(flag)}, expected true or false")
    id_ = value.get("sequence_id", 0)
    if isinstance(id_, bool) or not isinstance(id_, (int, str)):
        raise BadBody(f"'sequence_id' is {kind(id_)}, expected a whole number or text")
    if not id_:
        if any(flags.values()):
            raise BadBody("a sequence starts or ends, and no 'sequence_id' says which")
        return None
    if isinstance(id_, int) and not -(2**63) <= id_ < 2**64:
        raise BadBody("'sequence_id' has more than 64 bits")
    if len(str(id_)) > _LONGEST_ID:
        raise BadBody(f"'sequence_id' is longer than {_LONGEST_ID} characters")
    return SequenceAsk(str(id_), flags["sequence_start"], flags["sequence_end"])
