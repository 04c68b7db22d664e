"""An inference in the front, of whatever protocol: a worker, a canary or the cache answers it.

It is counted once, told in the headers by which version, and offered to a shadow. What a body says
is not looked at.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from edgefleet_agent.runtime.frames import Ask, Copy, Frame
from edgefleet_agent.serving.answer import Answer, busy, refuse
from edgefleet_agent.serving.cache import Fate, key_of, say
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.serving.door import Inference, Places
from edgefleet_agent.serving.link import DeadlinePassed, NoWorker, QueueFull, WorkerLost
from edgefleet_agent.serving.router import Entry, Router
from edgefleet_agent.serving.versions import drawn

VERSION_HEADER: Final = b"edgefleet-model-version"


class Inferring:
    """Answers inferences from the routes."""

    def __init__(self, config: ServingConfig, router: Router) -> None:
        self._config, self._router = config, router

    async def infer(
        self, inference: Inference, places: Places, body: bytes | Answer, start: float
    ) -> Answer:
        """What a worker makes of a body that was read, and counted; or what it was refused with."""
        # From here to the worker's queue nothing waits: the route that is found is the one used.
        found = inference.find(self._router.entries, places)
        if isinstance(found, Answer):
            return found
        entry = found
        answer: Answer | Frame
        fate = Fate.NONE
        if isinstance(body, Answer):
            answer = body
        else:
            asked = time.perf_counter()
            entry = drawn(self._router.entries, found, places)
            answer, fate = await self._find(entry, inference.ask, body)
            if entry is not found and _status(answer) != 200:
                canary, failed, now = entry, answer, time.perf_counter()
                left_s = self._config.deadline_s - (now - asked)
                found = inference.find(self._router.entries, places)  # another, after a swap
                if isinstance(found, Answer):
                    return found
                entry = found
                answer, fate = await self._find(found, inference.ask, body, left_s)
                if _status(answer) == 200:  # else the request is to blame
                    status = max(500, _status(failed))
                    self._router.count(canary, status, round((now - start) * 1e6))
                start = now
        took = round((time.perf_counter() - start) * 1e6)
        if isinstance(answer, Frame):
            frame, answer = answer, Answer(answer.code, answer.body)
            if frame.code == 200:
                answer = inference.present(frame)
            if frame.code == 200 and not isinstance(body, Answer) and fate is not Fate.HIT:
                # Comes after the answer is written: nothing waits between here and there.
                copy = Copy(inference.ask, took, body, frame.body)
                asyncio.get_running_loop().call_soon(self._router.copy, entry, copy)
        # A canary that was asked by name has nobody to stand in for it: that does not judge it.
        is_told = entry is not found or not entry.route.is_canary
        self._router.count(entry, answer.status, took, is_told=is_told)
        version = (VERSION_HEADER, b"%d" % entry.route.version)
        headers = (*answer.headers, version, *say(fate))
        return Answer(answer.status, answer.body, answer.content_type, headers)

    async def _find(
        self, entry: Entry, ask: Ask, body: bytes, deadline_s: float | None = None
    ) -> tuple[Answer | Frame, Fate]:
        """The answer, and whether it had been given before."""
        if entry.cache is None:
            return await self._ask(entry, ask, body, deadline_s), Fate.NONE
        key = key_of(ask, body)
        kept = entry.cache.get(key)
        if kept is not None:
            return Frame(0, 200, kept), Fate.HIT
        answer = await self._ask(entry, ask, body, deadline_s)
        if isinstance(answer, Frame) and answer.code == 200:
            is_kept = entry.cache.put(key, bytes(answer.body))
            return answer, Fate.STORED if is_kept else Fate.MISS
        return answer, Fate.MISS

    async def _ask(
        self, entry: Entry, ask: Ask, body: bytes, deadline_s: float | None
    ) -> Answer | Frame:
        name = entry.route.slot
        try:
            return await entry.link.ask(ask, body, deadline_s=deadline_s)
        except QueueFull:
            return busy(f"{self._config.queue} requests wait for {name}: try again")
        except NoWorker:
            return busy(f"no worker of {name} came back in time: try again")
        except DeadlinePassed:
            return refuse(504, f"{name} did not answer within {entry.link.deadline_s:g} s")
        except WorkerLost:
            times = "" if entry.route.is_canary else "twice "
            return refuse(500, f"the worker of {name} died {times}over this request")


def _status(answer: Answer | Frame) -> int:
    return answer.code if isinstance(answer, Frame) else answer.status
