"""The agent's half of measuring for the network: who may, what is run, what is answered. [api-12]

Nothing of a job is believed, and none of its files read, before a publisher that this device trusts
has signed it with a challenge that this agent gave out: each is good for one job, for ten minutes,
in this life of the agent. So a job that was seen on the network runs no second time, here or
elsewhere, and no clock has to be right. What came is gone when the answer is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from edgefleet_agent.runtime.measuring import Ability
from edgefleet_agent.runtime.precedence import GaveWay
from edgefleet_agent.runtime.process import finish
from edgefleet_agent.serving.config import MeasureConfig
from edgefleet_agent.serving.measuring import ANSWERED, ASK, FILES, RUN, STOP
from edgefleet_contract.errors import PeerError, Unverified
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.measuring import (
    Board,
    Invitation,
    MeasureJob,
    MeasureReport,
    Moment,
    Result,
    open_job,
    render_report,
)
from edgefleet_contract.measuring_archive import SIGNED, read_archive

log = logging.getLogger(__name__)

GOOD_FOR_S: Final = 600.0
_MOST_CHALLENGES: Final = 16
_MIB: Final = 1024 * 1024


class Host(Protocol):
    """Where it runs, and by whom it is asked."""

    @property
    def folder(self) -> Path:
        """For what came."""
        ...

    async def measure(
        self, job: MeasureJob, folder: Path, ability: Ability, *, within_s: float
    ) -> tuple[Result, ...]:
        """See `LocalHost.measure`."""
        ...

    def tell_front(self, message: dict[str, object]) -> None:
        """See `LocalHost.tell_front`."""
        ...


class MeasureDoor:
    """Hears the front, and answers it.

    Args:
        config: how much and how long.
        host: measures.
        device: this device's name.
        ability: what models are run on.
        facts: what this board is.
        moment: how it is doing.
        publishers: whose jobs are run.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        config: MeasureConfig,
        host: Host,
        *,
        device: str,
        ability: Ability,
        facts: Board,
        moment: Callable[[], Moment],
        publishers: Callable[[], KeyRing],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._host, self._device = config, host, device
        self._ability, self._facts, self._moment = ability, facts, moment
        self._publishers, self._clock = publishers, clock
        self._challenges: dict[str, float] = {}
        self._running: dict[int, asyncio.Task[tuple[int, str]]] = {}  # by the front's number
        self._leaving: set[asyncio.Task[tuple[int, str]]] = set()
        self._is_closed = False

    def hear(self, message: dict[str, Any] | None) -> None:
        """What the front says; None: it died, and whoever waited with it."""
        if message is None:
            self._give_up()
            for path in self._host.folder.glob(FILES):  # also what had come by half
                path.unlink(missing_ok=True)
            return
        if self._is_closed:
            return
        number = int(message["number"])
        match message["measure"]:
            case str(what) if what == ASK:
                self._answer(number, 200, render_report(self._invite()).decode())
            case str(what) if what == RUN:
                path = Path(message["path"])
                task = asyncio.create_task(self._run(path), name="measuring")
                self._running[number] = task
                task.add_done_callback(partial(self._ended, number, path))
            case str(what) if what == STOP and number in self._running:
                self._running[number].cancel()

    async def close(self) -> None:
        """End what is measured; nothing more is."""
        self._is_closed = True
        self._give_up()
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _give_up(self) -> None:
        """The next front counts from 1 again: nothing of this one is answered to it."""
        for task in self._running.values():
            task.cancel()
        self._leaving |= set(self._running.values())
        self._running.clear()

    def _invite(self) -> Invitation:
        now = self._clock()
        # In place, and each step whole: the thread of a job takes its challenge out meanwhile, and
        # that must not come back.
        for word in list(self._challenges):
            if self._challenges.get(word, now) <= now:
                self._challenges.pop(word, None)
        for word in list(self._challenges)[: 1 - _MOST_CHALLENGES]:
            self._challenges.pop(word, None)
        challenge = secrets.token_hex(16)
        self._challenges[challenge] = now + GOOD_FOR_S
        most = self._config
        return Invitation(self._device, self._facts, challenge, most.max_mib, round(most.max_s))

    async def _run(self, path: Path) -> tuple[int, str]:
        """The status and the body of the answer."""
        with tempfile.TemporaryDirectory(prefix="measure-", dir=self._host.folder) as name:
            read = partial(_read, path, Path(name), self._config.max_mib * _MIB, self._admit)
            job = await finish(asyncio.to_thread(read))
            before = await asyncio.to_thread(self._moment)
            results = await self._host.measure(
                job, Path(name), self._ability, within_s=self._config.max_s
            )
            after = await asyncio.to_thread(self._moment)
            report = MeasureReport(self._facts, before, after, results)
            return 200, render_report(report).decode()

    def _ended(self, number: int, path: Path, task: asyncio.Task[tuple[int, str]]) -> None:
        path.unlink(missing_ok=True)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        status, body = task.result() if error is None else _refusal(error)
        self._leaving.discard(task)
        if self._running.get(number) is task:
            del self._running[number]
            self._answer(number, status, body)

    def _admit(self, name: str, raw: bytes) -> MeasureJob:
        """The job, if it is one to be run here. In a thread."""
        if name != SIGNED:
            raise Unverified(f"job: it is not signed: the archive begins with {name[:40]!r}")
        job, signer = open_job(raw, self._publishers())
        if self._challenges.pop(job.challenge, 0.0) <= self._clock():
            raise Unverified("job: its challenge is none of this agent's, or was used, or is over")
        log.info("measure: %d candidates, signed by %s", len(job.candidates), signer[:12])
        return job

    def _answer(self, number: int, status: int, body: str) -> None:
        self._host.tell_front({ANSWERED: number, "status": status, "body": body})


def _read(
    path: Path, folder: Path, max_bytes: int, admit: Callable[[str, bytes], MeasureJob]
) -> MeasureJob:
    with path.open("rb") as file:
        return read_archive(file, folder, max_bytes=max_bytes, admit=admit)


def _refusal(error: BaseException) -> tuple[int, str]:
    """The status and the body that tell a client of an error."""
    match error:
        case GaveWay():
            return 503, _error(f"not now: {error}")
        case Unverified():
            return 403, _error(error.message)
        case PeerError():
            return 400, _error(error.message)
        case OSError():
            return 507, _error(f"the job cannot be kept: {error.strerror}")
        case asyncio.CancelledError():
            return 503, _error("it was ended before all was measured")
        case _:
            log.error("measure: failed", exc_info=error)
            return 500, _error("the agent met an error of its own")


def _error(text: str) -> str:
    return json.dumps({"error": text})
