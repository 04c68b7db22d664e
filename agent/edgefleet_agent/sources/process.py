"""The agent's hold on one source: its process started, heard, watched, started again, ended.

What it says is a stranger's word: a plug-in may run in it. A process that hangs up, says nonsense
or gives no sign of life is killed, and another follows after a growing pause. One that says that
its source has ended is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edgefleet_agent.runtime.process import ChildProcess, Forker, spawn
from edgefleet_agent.sources.config import SourceConfig
from edgefleet_contract.canonical import Json

_log = logging.getLogger(__name__)

MODULE: Final = "edgefleet_agent.sources.runner"
MAX_LINE: Final = 256 * 1024
"""The largest message that is read: above every result that may be published."""
_PACE_S: Final = 0.01
COUNTED: Final = ("read", "predicted", "dropped", "failed")
_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 60.0
_SETTLED_S: Final = 60.0
_START_S: Final = 60.0


class SourceProcess:
    """One source and the processes that carry it.

    Args:
        config: of the source.
        address: of the agent, where it asks.
        base: where its relative paths begin.
        hidden: what it must not read.
        zygote: forks it where that works.
        on_result: gets what an `mqtt` sink has to say.
    """

    def __init__(
        self,
        config: SourceConfig,
        *,
        address: str,
        base: Path,
        hidden: tuple[Path, ...],
        zygote: Forker | None,
        on_result: Callable[[dict[str, Json]], None],
    ) -> None:
        self.config = config
        self._job = _job(config, address, base, hidden)
        self._zygote, self._on_result = zygote, on_result
        self._process: ChildProcess | None = None
        self._before: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._patience = _START_S
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Of the process that runs; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    @property
    def counts(self) -> Counter[str]:
        """Of all its processes."""
        return self._before + self._now

    def count(self, what: str) -> None:
        """One more, counted by the agent."""
        self._before[what] += 1

    async def run(self) -> None:
        """Keep it running until it has ended for good."""
        pause = _BACKOFF_S
        while True:
            begun = time.monotonic()
            try:
                self._process = await spawn(
                    MODULE,
                    f"source {self.config.name}",
                    threads=1,
                    zygote=self._zygote,
                    max_line=MAX_LINE,
                )
            except OSError as error:
                why = f"cannot be started: {error.strerror}"
            else:
                ended = await self._hear_out(self._process)
                if ended is None:
                    _log.info("source %s: has ended", self.config.name)
                    return
                why = ended
            self.restarts += 1
            if time.monotonic() - begun > _SETTLED_S:
                pause = _BACKOFF_S
            _log.warning("source %s: %s; again in %g s", self.config.name, why, pause)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_BACKOFF_S, pause * 2)

    async def _hear_out(self, process: ChildProcess) -> str | None:
        """Why it is no more; None where its source has ended."""
        ended, why = False, ""
        try:
            process.send(self._job)
            self._patience = max(_START_S, self.config.stall_s)
            while (message := await self._receive(process)) is not None:
                match message:
                    case {"ended": True}:
                        ended = True
                    case {"refused": str(text)}:
                        why = _short(text)
                    case _:
                        self._heard(message)
                        # One that talks without end waits, and the agent does not.
                        await asyncio.sleep(_PACE_S)
        except TimeoutError:
            why = f"gave no sign of life for {self._patience:g} s, killed"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            why = "says what no source says, killed"
        except asyncio.CancelledError:
            await process.end()
            self._process = None
            raise
        process.kill()  # it hung up, or is to go
        code = await process.wait()
        self._process = None
        self._before += self._now
        self._now = Counter()
        return None if ended and not why else why or process.last_words(code)

    async def _receive(self, process: ChildProcess) -> dict[str, Any] | None:
        async with asyncio.timeout(self._patience):
            return await process.receive()

    def _heard(self, message: dict[str, Any]) -> None:
        """Take what it says.

        Raises:
            Exception: nothing that a source says.
        """
        match message:
            case {"opened": True}:
                self._patience = self.config.stall_s
                _log.info("source %s: runs (pid %s)", self.config.name, self.pid)
            case {"counts": dict(counts)}:
                self._now = Counter({key: int(counts[key]) for key in COUNTED})
            case {"result": dict(result)}:
                self._on_result(result)
            case {"say": str(text)}:
                _log.info("source %s: %s", self.config.name, _short(text))
            case {"lost": str(text)}:
                self.count("failed")
                _log.warning("source %s: %s", self.config.name, _short(text))
            case _:
                raise ValueError("no message of a source")


def _job(
    config: SourceConfig, address: str, base: Path, hidden: tuple[Path, ...]
) -> dict[str, Any]:
    return {
        "name": config.name,
        "kind": config.kind,
        "model": config.model,
        "every_s": config.every_s,
        "queue": config.queue,
        "options": dict(config.options),
        "sink": asdict(config.sink) if config.sink is not None else None,
        "address": address,
        "base": str(base),
        "hidden": [str(path) for path in hidden],
    }


def _short(text: str) -> str:
    """A stranger's words as the log may show them."""
    return ascii(text[:300])[1:-1]
