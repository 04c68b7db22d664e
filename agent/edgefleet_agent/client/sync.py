"""A client that blocks: one kept connection, for one thread."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, TypeAlias, TypeVar

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
from edgefleet_contract.errors import EdgefleetError, TransientError

T = TypeVar("T")
Outputs: TypeAlias = SequenceOf[str] | None
_TIMEOUT_S: Final = 60.0
_HUNG_UP: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class Client:
    """Asks the agent at `unix:PATH`, `HOST:PORT` or `https://HOST:PORT`. A context manager; a
    thread needs its own. `credentials` are for the last.

    The connection is kept. Where the agent closed it meanwhile, the call is made once more on a
    new one, which is safe: an inference changes nothing. One that continues a sequence does, and is
    never made twice.

    Every method raises:
        TransientError: nobody answers, or the model is busy (`retry_after_s`).
        OperatorError: the caller's to mend: no such model, other inputs than it takes.
        DeviceError: the agent failed; its words are in the message.
        Unverified: who answers is not known to be the agent.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = _TIMEOUT_S,
        credentials: Credentials = ANONYMOUS,
    ) -> None:
        self._address = address
        where = parse_address(address)
        self._headers = credentials.headers(where)
        self._connection = _connection(where, timeout_s, credentials)
        self._script = Script()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. The next call connects anew."""
        self._connection.close()

    @property
    def answered(self) -> str:
        """The version that answered the last inference; empty before the first."""
        return self._script.answered

    def models(self) -> tuple[ModelState, ...]:
        """All models of the device."""
        return self.run(self._script.models())

    def metadata(self, model: str, *, version: str | None = None) -> Metadata:
        """What a model takes and gives."""
        return self.run(self._script.metadata(model, version))

    def metrics(self) -> str:
        """Counts, latencies and drift of all models, as Prometheus reads them."""
        return self.run(self._script.metrics())

    def is_ready(self, model: str | None = None) -> bool:
        """Whether a model, or every model, would answer; one that is not served would not."""
        return self.run(self._script.is_ready(model))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array] | Array,
        *,
        version: str | None = None,
        outputs: Outputs = None,
    ) -> Tensors:
        """The outputs by name, all or those named; the arrays may be read-only.

        `inputs` are arrays by input name, or the only input; of the declared dtypes and shapes.
        Text is in arrays of `str`.
        """
        return self.run(self._script.infer(model, inputs, version, outputs))

    def predict_json(
        self, model: str, body: Json, *, version: str | None = None, method: str = "predict"
    ) -> Json:
        """The answer of TensorFlow Serving's protocol ([api-3]) to a body, or to a list of rows."""
        return self.run(self._script.predict_json(model, body, version, method))

    def sequence(self, model: str, *, version: str | None = None) -> Sequence:
        """Requests that continue each other, for a stateful model: `with client.sequence(m) as s`.

        Its first request starts the sequence; as the block is left, the device forgets it.
        """
        return Sequence(self, Progress(self._script, model, version))

    def run(self, steps: Steps[T]) -> T:
        """Carry calls to the agent, and its replies back, until the steps have a result."""
        try:
            call = next(steps)
            while True:
                call = steps.send(self._exchange(call))
        except StopIteration as done:
            result: T = done.value
            return result

    def _exchange(self, call: Call) -> Reply:
        try:
            sock: socket.socket | None = self._connection.sock
            if sock is not None and not call.is_repeatable and _is_spent(sock):
                self._connection.close()
                sock = None
            if sock is None or not call.is_repeatable:
                return self._ask(call)
            try:
                return self._ask(call)
            except _HUNG_UP:
                self._connection.close()
                return self._ask(call)
        except ssl.SSLCertVerificationError as error:
            self._connection.close()
            raise unverified(self._address, error) from None
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise TransientError(
                f"no agent answers at {self._address}: {error}",
                hint="is it running? `edge-agent status`",
            ) from None
        except BaseException:  # an answer that nobody read must not be taken for the next one's
            self._connection.close()
            raise

    def _ask(self, call: Call) -> Reply:
        headers = {**self._headers, **call.headers}
        self._connection.request(call.method, call.path, call.body or None, headers)
        response = self._connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())


class Sequence:
    """A sequence of requests; see `Client.sequence`."""

    def __init__(self, client: Client, progress: Progress) -> None:
        self._client, self._progress = client, progress

    @property
    def id(self) -> str:
        """Its name on the device."""
        return self._progress.id

    def __enter__(self) -> Sequence:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress.is_open:
            with suppress(EdgefleetError):  # what is idle is forgotten anyway
                self._client.run(self._progress.end())

    def infer(
        self,
        inputs: Mapping[str, Array] | Array,
        *,
        outputs: Outputs = None,
        last: bool = False,
    ) -> Tensors:
        """See `Client.infer`; after the `last` one, the next starts anew.

        Raises:
            SequenceLost: the device has not what it carries on, or a request did not come back.
        """
        return self._client.run(self._progress.infer(inputs, outputs, last=last))


def _is_spent(sock: socket.socket) -> bool:
    """Whether the other side has hung up, or says what nobody asked."""
    return bool(select.select([sock], [], [], 0)[0])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, where: Server, timeout_s: float, credentials: Credentials) -> None:
        context = credentials.context()
        super().__init__(where.host, where.port, timeout=timeout_s, context=context)
        self._credentials = credentials

    def connect(self) -> None:
        super().connect()
        self._credentials.check(self.sock.getpeercert(binary_form=True))


def _connection(
    where: Path | Server, timeout_s: float, credentials: Credentials
) -> http.client.HTTPConnection:
    if isinstance(where, Path):
        return _UnixConnection(where, timeout_s)
    if where.is_tls:
        return _TlsConnection(where, timeout_s, credentials)
    return http.client.HTTPConnection(where.host, where.port, timeout=timeout_s)
