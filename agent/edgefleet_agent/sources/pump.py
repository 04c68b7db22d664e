"""From a source to the model to the sink, one item after another.

A source that can wait does: its next item is asked for when the last is done with, and one that the
model has no time for is asked again. A live source is read by a thread of its own, and of the
items that wait the oldest is dropped, so that what is asked is fresh.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from edgefleet_agent.client import Client
from edgefleet_agent.client.messages import Metadata
from edgefleet_agent.sources.changes import Said, cause_of, tops_of
from edgefleet_agent.sources.config import SinkConfig
from edgefleet_agent.sources.plugin import (
    Answer,
    Failure,
    Found,
    Item,
    Sink,
    Source,
    Unreadable,
)
from edgefleet_contract.errors import DeviceError, OperatorError, TransientError

_ASK_S: Final = 40.0
"""Longer than the agent lets an inference take."""
_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 5.0
_TICK_S: Final = 0.5


class Stopped(Exception):
    """The agent wants an end."""


@dataclass(slots=True)
class Counts:
    """Of this process; see `SourceTelemetry`."""

    read: int = 0
    predicted: int = 0
    dropped: int = 0
    failed: int = 0


class Model:
    """The slot that is asked; it may not be served yet, or not at the moment.

    A client is for one thread: one asks, and the other, under a lock, describes for any thread.

    Args:
        address: of the agent.
        slot: which model.
        beat: called while this waits; raises `Stopped`.
    """

    def __init__(self, address: str, slot: str, *, beat: Callable[[], None]) -> None:
        self.slot, self._beat = slot, beat
        self._client = Client(address, timeout_s=_ASK_S)
        self._describer = Client(address, timeout_s=_ASK_S)
        self._lock = threading.Lock()
        self._known: Metadata | None = None

    def close(self) -> None:
        """Hang up."""
        self._client.close()
        self._describer.close()

    def describe(self) -> Metadata:
        """What it takes and gives; waits until it is served. Asked anew of another version."""
        while True:
            with self._lock:
                version = self._client.answered
                if self._known is not None and version in ("", self._known.version):
                    return self._known
                with suppress(TransientError, OperatorError):
                    self._known = self._describer.metadata(self.slot)
                    return self._known
            self.rest(_WAIT_S)

    def ask(self, item: Item) -> Answer | Failure | None:
        """The answer's outputs; None where the model is not to be had at the moment."""
        try:
            outputs = self._client.infer(self.slot, item.tensors)
        except TransientError:
            return None
        except OperatorError as error:
            if not self._is_ready():
                return None
            return Failure(error.message)
        except DeviceError as error:
            return Failure(error.message)
        ts = int(time.time() * 1000)
        tops = tops_of(outputs)
        version = self._client.answered
        return Answer("", self.slot, version, ts, outputs, item.metadata, tops)

    def rest(self, seconds: float) -> None:
        """Wait, with signs of life."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._beat()
            time.sleep(min(left, _TICK_S))

    def _is_ready(self) -> bool:
        try:
            return self._client.is_ready(self.slot)
        except TransientError:
            return False


class Pump:
    """One source, its model and its sink.

    Args:
        source: what is asked.
        model: who is asked.
        sink: who is told; None: nobody.
        rule: which answers the sink is told.
        counts: what happened, counted here.
        beat: called at least every few seconds while all is well; raises `Stopped`.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        model: Model,
        sink: Sink | None,
        rule: SinkConfig | None,
        counts: Counts,
        *,
        beat: Callable[[], None],
    ) -> None:
        self._name, self._source, self._model, self._sink = name, source, model, sink
        self._rule, self._counts, self._beat = rule, counts, beat
        self._said: Said | None = None

    def run(self, *, is_live: bool, queue: int) -> None:
        """Pump until the source ends.

        Raises:
            Stopped: the agent wants an end.
            Exception: whatever the source or the sink raised.
        """
        self._model.describe()
        found = _Newest(self._source, queue, self._counts) if is_live else self._source
        for one in found:
            self._beat()
            match one:
                case Item():
                    self._counts.read += 1
                    self._handle(one, is_live=is_live)
                case Unreadable():
                    self._counts.read += 1
                    self._counts.failed += 1
                case None:
                    pass

    def _handle(self, item: Item, *, is_live: bool) -> None:
        pause = _WAIT_S
        while (outcome := self._model.ask(item)) is None:
            if is_live:  # there will be a fresher one
                self._counts.dropped += 1
                self._source.settle(item, Failure("the model was not to be had"))
                self._model.rest(_WAIT_S)
                return
            self._model.rest(pause)
            pause = min(_LONGEST_WAIT_S, pause * 2)
        if isinstance(outcome, Failure):
            self._counts.failed += 1
        else:
            self._counts.predicted += 1
            outcome = replace(outcome, source=self._name)
            self._tell(outcome)
        self._source.settle(item, outcome)

    def _tell(self, answer: Answer) -> None:
        if self._sink is None or self._rule is None:
            return
        now = Said(answer.outputs, answer.tops, time.monotonic())
        if cause := cause_of(self._said, now, self._rule):
            self._sink.send(answer, cause)
            self._said = now


class _Newest:
    """A live source, read by a thread: of what waits, the newest `limit`.

    Where nothing came for a while because the source gives no sign of life, neither does this: the
    agent then sees that it hangs.
    """

    def __init__(self, source: Source, limit: int, counts: Counts) -> None:
        self._source, self._counts = source, counts
        self._waiting: deque[Found] = deque(maxlen=limit)
        self._changed = threading.Condition()
        self._is_alive = False
        self._ended: BaseException | None = None

    def __iter__(self) -> Iterator[Found]:
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news)
                one = self._waiting.popleft() if self._waiting else None
                self._is_alive = False
                ended = self._ended if one is None else None
            if isinstance(ended, StopIteration):
                return
            if ended is not None:
                raise ended
            yield one

    def _has_news(self) -> bool:
        return bool(self._waiting) or self._is_alive or self._ended is not None

    def _read(self) -> None:
        ended: BaseException = StopIteration()
        try:
            for found in self._source:
                with self._changed:
                    self._is_alive = True
                    if found is not None:
                        if len(self._waiting) == self._waiting.maxlen:
                            self._counts.read += 1
                            self._counts.dropped += 1
                        self._waiting.append(found)
                    self._changed.notify()
        except BaseException as error:  # noqa: BLE001  # it is raised again, in the other thread
            ended = error
        with self._changed:
            self._ended = ended
            self._changed.notify()
