"""The shell of commands: verifies, remembers, has them done, and answers until the broker has it.

Each command is durable in the log before it is done, and its answer before it is sent. What is
quick is done beside what takes long; of the latter (`_IN_TURN`) one at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from edgefleet_agent.adapters.command_file import CommandFile
from edgefleet_agent.commanding import CommandLog, Ignore, Refuse, Run, judge
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_contract import messages
from edgefleet_contract.commands import (
    MAX_ANSWER_BYTES,
    MAX_COMMAND_BYTES,
    Command,
    CommandResult,
    Kind,
    Outcome,
    open_command,
)
from edgefleet_contract.errors import DeviceError, EdgefleetError, PeerError, TransientError
from edgefleet_contract.reasons import Reason

log = logging.getLogger(__name__)

AT_ONCE: Final = 16
_WAITING: Final = 64
_LOOK_S: Final = 0.1
_IN_TURN: Final = frozenset({Kind.RESTART_WORKER, Kind.SELF_TEST, Kind.PREDICT})
Done = tuple[Outcome, str, dict[str, object]]


class Acts(Protocol):
    """Does what a command says."""

    async def perform(self, command: Command) -> Done:
        """How it ended, in words where it did not go well, and what it found."""
        ...


class Receipt(Protocol):
    """Whether the broker has a message."""

    def is_published(self) -> bool:
        """Whether it has."""
        ...


class Commander:
    """The commands of one device, on one event loop.

    Args:
        fleet, device, boot_id: who this is.
        allow: the kinds that may be done.
        keeper: knows the directors, and the time.
        file: keeps the log.
        acts: does them.
        send: publishes an answer.
    """

    def __init__(
        self,
        *,
        fleet: str,
        device: str,
        boot_id: str,
        allow: tuple[Kind, ...],
        keeper: TrustKeeper,
        file: CommandFile,
        acts: Acts,
        send: Callable[[bytes], Receipt],
    ) -> None:
        self._fleet, self._device, self._boot_id = fleet, device, boot_id
        self._allow, self._keeper, self._file = allow, keeper, file
        self._acts, self._send = acts, send
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        self._one_at_a_time, self._saving = asyncio.Lock(), asyncio.Lock()
        self._running = 0
        self._log = CommandLog()

    def arrived(self, raw: bytes) -> None:
        """Take the bytes of a command, from the loop's thread."""
        if len(raw) > MAX_COMMAND_BYTES or self._arrived.full():
            log.warning("a command of %d bytes is dropped", len(raw))
            return
        self._arrived.put_nowait(raw)

    async def run(self) -> None:
        """Answer what an earlier run left, then work until canceled."""
        self._log = await asyncio.to_thread(self._file.load, self._keeper.now)
        async with asyncio.TaskGroup() as tasks:
            for item in self._log.taken:
                if item.is_open:
                    words = "the agent ended while it was at it; it is not done again"
                    result = self._result(item.id, item.kind, Outcome.INTERRUPTED, words, {})
                    tasks.create_task(self._answer(item.seq, messages.render(result)))
                elif not item.told:
                    tasks.create_task(self._tell(item.seq, item.answer.encode()))
            while True:
                await self._take(await self._arrived.get(), tasks)

    async def _take(self, raw: bytes, tasks: asyncio.TaskGroup) -> None:
        try:
            command = await self._open(raw)
        except (PeerError, TransientError) as error:
            log.warning("a command is refused: %s", error.message)
            return
        verdict = judge(
            command,
            self._log,
            fleet=self._fleet,
            name=self._device,
            now=self._keeper.now,
            allow=self._allow,
            running=self._running,
            at_once=AT_ONCE,
        )
        if isinstance(verdict, Ignore):
            log.info("command %s is not heard: %s", command.id, verdict.why)
            return
        try:
            await self._keep(lambda found: found.began(command))
        except DeviceError as error:  # what cannot be remembered could be done twice
            result = self._result(command.id, command.kind, Outcome.REFUSED, error.message, {})
            self._send(messages.render(result))
            return
        log.info("command %s: %s by the fleet", command.id, command.kind)
        match verdict:
            case Refuse(why):
                result = self._result(command.id, command.kind, Outcome.REFUSED, why, {})
                tasks.create_task(self._answer(command.seq, messages.render(result)))
            case Run():
                self._running += 1
                tasks.create_task(self._do(command))

    async def _open(self, raw: bytes) -> Command:
        """The command, if a director signed it; asks the publishers about directors once."""
        try:
            return open_command(raw, self._keeper.directors)
        except PeerError as error:
            if error.reason is not Reason.UNKNOWN_KEY:
                raise
            await self._keeper.refresh()
            return open_command(raw, self._keeper.directors)

    async def _do(self, command: Command) -> None:
        try:
            if command.kind in _IN_TURN:
                async with self._one_at_a_time:
                    outcome, detail, data = await self._perform(command)
            else:
                outcome, detail, data = await self._perform(command)
        finally:
            self._running -= 1
        result = self._result(command.id, command.kind, outcome, detail, data)
        raw = messages.render(result)
        if len(raw) > MAX_ANSWER_BYTES:
            words = f"the answer has {len(raw)} bytes, at most {MAX_ANSWER_BYTES} are sent"
            result = self._result(command.id, command.kind, Outcome.FAILED, words, {})
            raw = messages.render(result)
        log.info("command %s: %s: %s %s", command.id, command.kind, outcome, detail)
        await self._answer(command.seq, raw)

    async def _perform(self, command: Command) -> Done:
        try:
            return await self._acts.perform(command)
        except EdgefleetError as error:
            return Outcome.FAILED, error.message, {}
        except Exception as error:
            log.exception("a command met an error of the agent's own")
            return Outcome.FAILED, repr(error)[:200], {}

    async def _answer(self, seq: int, raw: bytes) -> None:
        try:
            await self._keep(lambda found: found.answered(seq, raw.decode()))
        except DeviceError as error:
            log.warning("the answer is sent, but not kept: %s", error.message)
        await self._tell(seq, raw)

    async def _tell(self, seq: int, raw: bytes) -> None:
        receipt = self._send(raw)
        while not receipt.is_published():  # noqa: ASYNC110 - paho says it in another thread
            await asyncio.sleep(_LOOK_S)
        try:
            await self._keep(lambda found: found.told(seq))
        except DeviceError as error:
            log.warning("it is sent again at the next start: %s", error.message)

    async def _keep(self, change: Callable[[CommandLog], CommandLog]) -> None:
        """Make a change of the log durable. Raises DeviceError: it is as it was."""
        async with self._saving:
            changed = change(self._log)
            await asyncio.to_thread(self._file.save, changed)
            self._log = changed

    def _result(
        self, name: str, kind: Kind, outcome: Outcome, detail: str, data: dict[str, object]
    ) -> CommandResult:
        return CommandResult(
            device=self._device,
            boot_id=self._boot_id,
            ts=int(time.time()),
            id=name,
            kind=kind,
            outcome=outcome,
            detail=detail[:1000],
            data=data or None,
        )


def fit_lines(lines: list[str], *, max_bytes: int = MAX_ANSWER_BYTES - 4096) -> list[str]:
    """The newest of some lines that an answer has room for."""
    kept: list[str] = []
    for line in reversed(lines):
        max_bytes -= len(json.dumps(line)) + 1
        if max_bytes < 0:
            break
        kept.append(line)
    return kept[::-1]


def plain(value: dict[str, Any]) -> dict[str, object]:
    """Without what is not known: an answer holds no null."""
    return {name: item for name, item in value.items() if item is not None}
