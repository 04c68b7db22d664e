"""A client for asyncio: a few kept connections, over which any number of tasks ask.

On asyncio's streams and not on threads: as many requests are on their way as there are
connections, while the default pool of threads has six on two cores. The agent gives the length of
every answer, so the little HTTP/1.1 that is needed is here; chunks are not read.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edgefleet_agent.client.credentials import ANONYMOUS, Credentials, unverified
from edgefleet_agent.client.messages import (
    Call,
    Metadata,
    ModelState,
    Reply,
    Server,
    parse_address,
)
from edgefleet_agent.client.sequences import Progress
from edgefleet_agent.client.steps import Script, Steps
from edgefleet_agent.runtime.engine import Array, Tensors
from edgefleet_contract.canonical import Json
from edgefleet_contract.errors import EdgefleetError, TransientError, Unverified

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio; tasks share it. Used in `async with`.

    At most `connections` requests are on their way at once, others wait for their turn: fewer than
    an agent queues for a model (64), so that one client alone is not turned away. The deadline
    begins with the turn.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 60.0,
        connections: int = 32,
        credentials: Credentials = ANONYMOUS,
    ) -> None:
        self._address = address
        self._where = parse_address(address)
        self._credentials = credentials
        self._headers = credentials.headers(self._where)
        is_tls = isinstance(self._where, Server) and self._where.is_tls
        self._context = credentials.context() if is_tls else None
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(connections)
        self._kept: list[_Connection] = []
        self._script = Script()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up. The next call connects anew."""
        while self._kept:
            await self._kept.pop().close()

    async def models(self) -> tuple[ModelState, ...]:
        """See `Client.models`."""
        return await self.run(self._script.models())

    async def metadata(self, model: str, *, version: str | None = None) -> Metadata:
        """See `Client.metadata`."""
        return await self.run(self._script.metadata(model, version))

    async def metrics(self) -> str:
        """See `Client.metrics`."""
        return await self.run(self._script.metrics())

    async def is_ready(self, model: str | None = None) -> bool:
        """See `Client.is_ready`."""
        return await self.run(self._script.is_ready(model))

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array] | Array,
        *,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
    ) -> Tensors:
        """See `Client.infer`."""
        return await self.run(self._script.infer(model, inputs, version, outputs))

    async def predict_json(
        self, model: str, body: Json, *, version: str | None = None, method: str = "predict"
    ) -> Json:
        """See `Client.predict_json`."""
        return await self.run(self._script.predict_json(model, body, version, method))

    def sequence(self, model: str, *, version: str | None = None) -> AsyncSequence:
        """See `Client.sequence`: `async with client.sequence(model) as sequence`."""
        return AsyncSequence(self, Progress(self._script, model, version))

    async def run(self, steps: Steps[T]) -> T:
        """See `Client.run`."""
        try:
            call = next(steps)
            while True:
                call = steps.send(await self._exchange(call))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _exchange(self, call: Call) -> Reply:
        async with self._turns:
            try:
                async with asyncio.timeout(self._timeout_s):
                    if not call.is_repeatable:
                        return await self._ask(await self._live(), call)
                    if self._kept:
                        with suppress(ConnectionError, _HungUp):
                            return await self._ask(self._kept.pop(), call)
                    return await self._ask(await self._connect(), call)
            except ssl.SSLCertVerificationError as error:
                raise unverified(self._address, error) from None
            except (OSError, EOFError, ValueError, http.client.HTTPException) as error:
                said = str(error) or f"nothing came in {self._timeout_s} s"
                raise TransientError(
                    f"no agent answers at {self._address}: {said}",
                    hint="is it running? `edge-agent status`",
                ) from None

    async def _live(self) -> _Connection:
        """A kept connection that the agent has not hung up on, or a new one."""
        await asyncio.sleep(0)  # the loop hears of what came meanwhile
        while self._kept:
            connection = self._kept.pop()
            if not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return await self._connect()

    async def _ask(self, connection: _Connection, call: Call) -> Reply:
        is_whole = False
        try:
            reply = await connection.ask(call, self._headers)
            is_whole = reply.headers.get("connection", "").lower() != "close"
        finally:
            if is_whole:
                self._kept.append(connection)
            else:
                connection.writer.transport.abort()
        return reply

    async def _connect(self) -> _Connection:
        where = self._where
        if isinstance(where, Path):
            return _Connection(*await asyncio.open_unix_connection(where))
        streams = await asyncio.open_connection(where.host, where.port, ssl=self._context)
        connection = _Connection(*streams)
        if self._context is not None:
            secured = connection.writer.get_extra_info("ssl_object")
            try:
                self._credentials.check(secured.getpeercert(binary_form=True))
            except Unverified:
                connection.writer.transport.abort()
                raise
        return connection


class AsyncSequence:
    """`Sequence` for asyncio. One request of a sequence is made after the other."""

    def __init__(self, client: AsyncClient, progress: Progress) -> None:
        self._client, self._progress = client, progress

    @property
    def id(self) -> str:
        """See `Sequence.id`."""
        return self._progress.id

    async def __aenter__(self) -> AsyncSequence:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress.is_open:
            with suppress(EdgefleetError):
                await self._client.run(self._progress.end())

    async def infer(
        self,
        inputs: Mapping[str, Array] | Array,
        *,
        outputs: Sequence[str] | None = None,
        last: bool = False,
    ) -> Tensors:
        """See `Sequence.infer`."""
        return await self._client.run(self._progress.infer(inputs, outputs, last=last))


class _HungUp(EOFError):
    """The agent closed the connection before it said anything."""


@dataclass(frozen=True, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, call: Call, more: Mapping[str, str]) -> Reply:
        head = {"Host": "edge", "Content-Length": str(len(call.body)), **more, **call.headers}
        lines = [f"{call.method} {call.path} HTTP/1.1", *(f"{k}: {v}" for k, v in head.items())]
        self.writer.write("\r\n".join((*lines, "", "")).encode("latin-1"))
        self.writer.write(call.body)
        await self.writer.drain()
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise EOFError("it hung up") if error.partial else _HungUp("it hung up") from None
        except asyncio.LimitOverrunError:
            raise ValueError("its headers do not end") from None
        first, _, rest = raw.partition(b"\r\n")
        version, _, said = first.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise ValueError(f"it does not speak HTTP/1.1: {first[:50]!r}")
        status = int(said[:3])
        headers = {k.lower(): v for k, v in http.client.parse_headers(BytesIO(rest)).items()}
        if "content-length" not in headers:
            raise ValueError("it does not say how long its answer is")
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(status, headers, body)

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):  # it is gone either way
            await self.writer.wait_closed()
