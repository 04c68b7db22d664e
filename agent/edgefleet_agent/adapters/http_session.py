"""HTTP for devices: no proxies, no redirects, no compression, and an end that does not hang.

A peer that sends a byte now and then keeps a socket's own timeout from ever passing. So whoever
waits says how long the next piece may take; when it takes longer, the socket is shut down under the
reader, in whatever phase it is. `end` does the same at once, from any thread.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import requests
import requests.adapters
import urllib3

from edgefleet_agent.adapters.tls import Tls
from edgefleet_contract.errors import TransientError

FOREIGN: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ValueError,  # a host name of 300 letters, a chunk of -5 bytes
)
"""What a request may raise, given any address and any answer."""


class HttpSession:
    """Requests of one thread at a time; `end` may be called from another."""

    def __init__(
        self, *, timeout: tuple[float, float], patience_s: float, tls: Tls | None = None
    ) -> None:
        """`timeout`: to connect, and of each read; `patience_s`: for the head, and each piece.

        `tls`: for https; left out: the world's authorities are believed, and nothing is shown.
        """
        self._timeout = timeout
        self._patience_s = patience_s
        self._adapter = _Adapter(tls)
        self._session = requests.Session()
        self._session.trust_env = False  # a device's peers are not behind a user's proxy settings
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)

    def end(self) -> None:
        """Break off whatever is under way."""
        self._adapter.end()

    def get(self, url: str, headers: dict[str, str]) -> AbstractContextManager[Answer]:
        """An answer whose head has arrived. Raises as `post` does."""
        return self._ask("GET", url, headers, None)

    def post(self, url: str, body: bytes) -> AbstractContextManager[Answer]:
        """The answer to a JSON document.

        Raises:
            TransientError: it is compressed, which was not asked for; or its head took too long
                (a head that was broken off can be read as a whole one without a body).
            FOREIGN: what `requests` and `urllib3` raise.
        """
        return self._ask("POST", url, {"Content-Type": "application/json"}, body)

    @contextmanager
    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> Iterator[Answer]:
        with (
            _Watch(self.end, self._patience_s) as watch,
            self._session.request(
                method,
                url,
                data=body,
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                timeout=self._timeout,
                allow_redirects=False,  # an address that nobody named is not asked
            ) as response,
        ):
            watch.more()
            watch.check(url)
            coding = response.headers.get("Content-Encoding", "identity")
            if coding.lower() != "identity":
                raise TransientError(f"{url} answered in the content coding {coding[:40]!r}")
            yield Answer(response, watch)


class Answer:
    """The status, and the body in pieces."""

    def __init__(self, response: requests.Response, watch: _Watch) -> None:
        self._response = response
        self._watch = watch
        self.status = response.status_code

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        return str(self._response.headers.get(name, ""))

    def pieces(self, size: int) -> Iterator[bytes]:
        """The body in pieces of at most `size` bytes; patience is renewed by `size` of them."""
        seen, due = 0, size
        for piece in self._response.iter_content(size):
            seen += len(piece)
            if seen >= due:  # a peer may send chunks of one byte each
                due = seen + size
                self._watch.more()
            yield piece
        self._watch.check(self._response.url)


class _Watch:
    """A thread that calls `end` once when nobody said `more` for so long."""

    def __init__(self, end: Any, seconds: float) -> None:
        self._end, self._seconds = end, seconds
        self._done = threading.Event()
        self._is_over = False
        self._deadline = time.monotonic() + seconds
        self._thread = threading.Thread(target=self._run, name="http-watch", daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def more(self) -> None:
        self._deadline = time.monotonic() + self._seconds

    def check(self, url: str) -> None:
        """Nothing, unless time was up: what was read since may be half of it."""
        if self._is_over:
            raise TransientError(f"{url[:200]} is too slow")

    def _run(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._done.wait(left):
                return
        self._is_over = True
        self._end()


class _Adapter(requests.adapters.HTTPAdapter):
    """Remembers the sockets that it opens; speaks TLS as it is told."""

    def __init__(self, tls: Tls | None) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._opening = threading.Lock()  # a set that grows cannot be gone through
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        opened, tls = self._opened, self._tls

        class Plain(urllib3.connection.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                opened(self.sock)

        class Secure(urllib3.connection.HTTPSConnection):
            def connect(self) -> None:
                if tls is not None:
                    self.ssl_context = tls.context()
                    self.cert_reqs = self.ssl_context.verify_mode
                    self.ca_certs = self.ca_cert_dir = self.ca_cert_data = None
                super().connect()
                opened(self.sock)
                self.is_verified = True  # as far as it was asked for: urllib3 need not warn

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def _opened(self, sock: socket.socket) -> None:
        with self._opening:
            self._sockets.add(sock)

    def end(self) -> None:
        with self._opening:
            sockets = list(self._sockets)
        for one in sockets:
            with contextlib.suppress(OSError):  # it is closed already
                # Not `SSLSocket.shutdown`: that takes TLS away from under the reader.
                socket.socket.shutdown(one, socket.SHUT_RDWR)
