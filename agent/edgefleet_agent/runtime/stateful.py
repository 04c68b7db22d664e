"""Runs a model whose answers depend on what was asked before: docs/spec/bundle.md, section 10.

A request of a sequence continues where the last one of it ended; one without is a sequence of its
own. The state that a model takes and gives as tensors is kept here, out of the clients' sight. A
model that keeps state by itself has a session for each sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgefleet_agent.runtime.engine import Array, Session, Tensors
from edgefleet_agent.runtime.sequences import Sequences
from edgefleet_agent.serving.bodies import BadBody, join_results
from edgefleet_agent.serving.question import Question
from edgefleet_contract.bundle import TensorSpec, Variant
from edgefleet_contract.graph import Program


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a sequence stands: the tensors that go in next, and the session that it runs in."""

    session: Session
    state: Tensors


class Stateful:
    """Answers questions to one model.

    Args:
        session: the model, as it was loaded.
        variant: what it declares.
        program: that of the variant.
        limit: how many sequences are kept.
        idle_s: for how long after its last request each is.
    """

    def __init__(
        self, session: Session, variant: Variant, program: Program, *, limit: int, idle_s: float
    ) -> None:
        self._session, self._variant, self._program = session, variant, program
        self._sequences: Sequences[Memory] = Sequences(limit=limit, idle_s=idle_s)
        pairs = {pair.input for pair in program.state}
        self._state = tuple(spec for spec in variant.inputs if spec.name in pairs)
        has_open_state = any(-1 in spec.shape for spec in self._state)
        self._single = tuple(
            spec
            for spec in variant.public_inputs
            if has_open_state and len(spec.shape) > 1 and spec.shape[0] == -1
        )

    def answer(
        self,
        question: Question,
        now: float,
        note: Callable[[Tensors, Tensors], None] = lambda _feeds, _outputs: None,
    ) -> bytes:
        """The body of the answer. Only a request that is answered moves its sequence on.

        `note` is told of each call of one that is answered, less the state.

        Raises:
            UnknownSequence: it continues one whose state is not here.
            BadBody: more rows than the state has.
            CannotRun, BadOutput: see there. A session that keeps state by itself cannot go back:
                its sequence has then ended.
        """
        self._check_rows(question)
        asked = question.sequence
        if asked is None or asked.start:
            memory = self._begin()
        else:
            memory = self._sequences.get(asked.id, now)
        if asked is not None and self._program.hidden_state:
            self._sequences.drop(asked.id)  # until all went well
        results: list[Tensors] = []
        state = memory.state
        for feeds in question.calls:
            outputs = memory.session.run({**feeds, **state})
            state = {pair.input: outputs.pop(pair.output) for pair in self._program.state}
            results.append(outputs)
        body = question.tell(join_results(results, self._variant.public_outputs))
        for feeds, outputs in zip(question.calls, results, strict=True):
            note(feeds, outputs)
        if asked is not None and asked.end:
            self._sequences.drop(asked.id)
        elif asked is not None:
            self._sequences.put(asked.id, Memory(memory.session, state), now)
        return body

    def _begin(self) -> Memory:
        session = self._session.fresh() if self._program.hidden_state else self._session
        return Memory(session, {spec.name: _zeros(spec) for spec in self._state})

    def _check_rows(self, question: Question) -> None:
        for feeds in question.calls:
            for spec in self._single:
                rows = feeds[spec.name].shape[0]
                if rows != 1:
                    raise BadBody(
                        f"input {spec.name!r} has {rows} rows, and the state of a sequence is that"
                        " of one: send one row a request"
                    )


def _zeros(spec: TensorSpec) -> Array:
    """How a sequence begins; a size that may vary is 1."""
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    return np.full(shape, "", object) if spec.dtype == "string" else np.zeros(shape, spec.dtype)
