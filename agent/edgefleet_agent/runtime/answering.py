"""Requests in, statuses and bodies out: what a worker does with what it was asked.

One request that is wrong, or that the model fails, is refused alone: what was run together and
failed is run again one by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from edgefleet_agent.runtime.batching import groups, join, rows, split
from edgefleet_agent.runtime.engine import CannotRun, Session, Tensors
from edgefleet_agent.runtime.frames import Frame
from edgefleet_agent.runtime.loading import Job, read_labels
from edgefleet_agent.runtime.sequences import UnknownSequence
from edgefleet_agent.runtime.speech import SPEECHES
from edgefleet_agent.runtime.stateful import Stateful
from edgefleet_agent.runtime.tally import Tally
from edgefleet_agent.serving.bodies import BadBody, BadOutput, Served, error, join_results
from edgefleet_agent.serving.question import Question

_TOLD: Final = (BadBody, BadOutput, CannotRun, UnknownSequence, MemoryError, RecursionError)


@dataclass(frozen=True, slots=True)
class Said:
    """An HTTP status and a body."""

    code: int
    body: bytes


Answered: TypeAlias = tuple[Frame, Said]
"""A request and what is said to it."""


class Answerer:
    """Answers requests to one model, one at a time or those that came together.

    Args:
        session: the model.
        job: what the worker was told of it.
        tally: counts what goes in and comes out, where that is wanted.
    """

    def __init__(self, session: Session, job: Job, tally: Tally | None = None) -> None:
        variant = job.variant
        self._session = session
        self.tally = tally
        self._served = Served(
            job.slot,
            job.version,
            variant.public_inputs,
            variant.public_outputs,
            read_labels(job),
        )
        self._stateful: Stateful | None = None
        if variant.program is not None and variant.program.is_stateful:
            limit = job.serving.sequences(own_session=variant.program.hidden_state)
            idle_s = job.serving.sequence_idle_s
            self._stateful = Stateful(session, variant, variant.program, limit=limit, idle_s=idle_s)

    @property
    def is_stateful(self) -> bool:
        """Whether an answer depends on what was asked before."""
        return self._stateful is not None

    def answer(self, frame: Frame) -> Said:
        """The answer to one request."""
        question = self.read(frame)
        return question if isinstance(question, Said) else self.run(question)

    def answer_together(self, frames: Sequence[Frame]) -> Iterator[list[Answered]]:
        """The answers to requests, in their order, run together where they can be.

        What is ready at once comes at once; before a request is run by itself, all before it come.
        """
        asked = [self.read(frame) for frame in frames]
        places = [i for i, question in enumerate(asked) if isinstance(question, Question)]
        questions = [question for question in asked if isinstance(question, Question)]
        found = {places[i]: outputs for i, outputs in self._run_jointly(questions).items()}
        ready: list[Answered] = []
        for i, (frame, question) in enumerate(zip(frames, asked, strict=True)):
            if isinstance(question, Said):
                ready.append((frame, question))
            elif i in found:
                ready.append((frame, self._tell(question, found[i])))
            else:
                if ready:
                    yield ready
                ready = []
                yield [(frame, self.run(question))]
        if ready:
            yield ready

    def read(self, frame: Frame) -> Question | Said:
        """What a request asks, or its refusal."""
        speech = SPEECHES.get(frame.code)
        if speech is None:
            return Said(500, error(f"the worker does not know request {frame.code}"))
        try:
            return speech.read(frame.body, self._served)
        except _TOLD as failure:
            return _refusal(failure)

    def run(self, question: Question) -> Said:
        """The answer to a question by itself."""
        try:
            if self._stateful is not None:
                return Said(200, self._stateful.answer(question, time.monotonic(), self._note))
            results = [self._session.run(feeds) for feeds in question.calls]
            said = Said(200, question.tell(join_results(results, self._served.outputs)))
            for feeds, outputs in zip(question.calls, results, strict=True):
                self._note(feeds, outputs)
            return said
        except _TOLD as failure:
            return _refusal(failure)

    def _run_jointly(self, questions: list[Question]) -> dict[int, Tensors]:
        """The outputs of those that could be run together, by their places."""
        found: dict[int, Tensors] = {}
        for places in groups(questions):
            calls = [questions[i].calls[0] for i in places]
            try:
                joined = join(calls)
                results = self._session.run(joined)
            except (CannotRun, MemoryError):
                continue  # each by itself, so that one cannot fail the others
            parts = split(results, [rows(call) for call in calls], self._served.outputs)
            if parts is not None:
                found |= zip(places, parts, strict=True)
                self._note(joined, results)
        return found

    def _note(self, feeds: Tensors, outputs: Tensors) -> None:
        if self.tally is not None:
            self.tally.note(feeds, outputs)

    def _tell(self, question: Question, outputs: Tensors) -> Said:
        try:
            return Said(200, question.tell(outputs))
        except _TOLD as failure:
            return _refusal(failure)


def _refusal(failure: Exception) -> Said:
    if isinstance(failure, UnknownSequence):
        return Said(409, error(str(failure)))
    if isinstance(failure, BadBody):
        return Said(400, error(str(failure)))
    if isinstance(failure, CannotRun):
        return Said(400 if failure.input_is_to_blame else 500, error(str(failure)))
    if isinstance(failure, BadOutput):
        return Said(500, error(str(failure)))
    return Said(500, error(f"{type(failure).__name__} while answering"))
