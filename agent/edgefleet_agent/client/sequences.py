"""A sequence as its client sees it: where it stands, and what each request of it says. [api-7]

Without I/O. A request that did not come back may have moved the sequence on or not: then it is
lost, and nothing is asked twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from edgefleet_agent.client.messages import SequenceLost
from edgefleet_agent.client.steps import Script, Steps
from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_contract.errors import OperatorError, TransientError


class Progress:
    """One sequence of requests to one model; its methods are steps, as those of `Script`."""

    def __init__(self, script: Script, model: str, version: str | None) -> None:
        self.id = uuid.uuid4().hex
        self._script, self._model, self._version = script, model, version
        self._has_begun = self._has_ended = self._is_lost = False

    def infer(
        self, inputs: Mapping[str, Array] | Array, outputs: Sequence[str] | None, *, last: bool
    ) -> Steps[Tensors]:
        """The outputs by name; the sequence has moved on by what was sent.

        Raises:
            SequenceLost: the device does not know it any more, or an earlier request did not come
                back.
        """
        if self._is_lost:
            raise SequenceLost(
                f"{self._model}: what became of the last request of this sequence is not known",
                hint="start a new sequence",
            )
        starts = not self._has_begun or self._has_ended
        self._is_lost = not starts  # until the device has said what became of it
        said = {"sequence_id": self.id, "sequence_start": starts, "sequence_end": last}
        try:
            found = yield from self._script.infer(
                self._model, inputs, self._version, outputs, parameters=said, repeatable=starts
            )
        except SequenceLost:
            raise
        except (OperatorError, TransientError):  # refused: it stands where it stood
            self._is_lost = False
            raise
        self._has_begun, self._has_ended, self._is_lost = True, last, False
        return found

    @property
    def is_open(self) -> bool:
        """Whether the device keeps something for it."""
        return self._has_begun and not self._has_ended and not self._is_lost

    def end(self) -> Steps[None]:
        """Let the device forget it, without an inference."""
        self._has_ended = True
        yield from self._script.end(self._model, self.id)
