"""A real host with a network port, its tokens, and clients that speak TLS to it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefleet_agent.serving.lan import LanConfig
from edgefleet_agent.serving.token_file import changing
from edgefleet_agent.serving.tokens import make_token
from tests.agent.hosting import Answered, RunningHost, running


@dataclass
class Network(RunningHost):
    """As `RunningHost`, asked over TLS; `headers` go with every request."""

    lan: LanConfig
    headers: dict[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        return int(self.host.lan_addresses[0].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def local_port(self) -> int:
        return int(self.host.addresses[0].rpartition(":")[2])

    def trusting(self, client: Path | None = None) -> ssl.SSLContext:
        """A client's context that believes the certificate of the port, and no other."""
        context = ssl.create_default_context(cafile=self.lan.certificate_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
        if client is not None:
            context.load_cert_chain(client)
        return context

    def connect(self) -> http.client.HTTPConnection:
        context = self.context or self.trusting()
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answered:
        own = connection or self.connect()
        try:
            return super().ask(method, path, body, self.headers | (headers or {}), own)
        finally:
            if connection is None:
                own.close()

    def token(self, name: str, *, lasts_s: int = 0, models: tuple[str, ...] = ()) -> str:
        """A new token's secret."""
        token, secret = make_token(name, now=int(time.time()), lasts_s=lasts_s, models=models)
        with changing(self.lan.tokens_file) as held:
            held[0] = held[0].add(token)
        return secret

    def revoke(self, name: str) -> None:
        with changing(self.lan.tokens_file) as held:
            held[0] = held[0].revoke(name)

    def refused(self) -> dict[str, float]:
        """What `/metrics` on the local socket says was turned away, by reason."""
        samples = self.samples("edgefleet_network_refused_total")
        return {labels.split('"')[1]: n for labels, n in samples.items()}

    def samples(self, name: str) -> dict[str, float]:
        """The samples of one metric by their labels."""
        local = http.client.HTTPConnection("127.0.0.1", self.local_port, timeout=60)
        local.request("GET", "/metrics")
        lines = local.getresponse().read().decode().splitlines()
        local.close()
        return {
            line.removeprefix(name).rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(name + "{")
        }

    @contextmanager
    def dial(self, *, secured: bool = True) -> Iterator[socket.socket]:
        """A bare connection, with or without its handshake."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as raw:
            if not secured:
                yield raw
                return
            with self.trusting().wrap_socket(raw, server_hostname="127.0.0.1") as sock:
                yield sock


@contextmanager
def on_network(folder: Path, lan: dict[str, Any] | None = None, **config: Any) -> Iterator[Network]:
    """A started host with one local and one network port."""
    made = LanConfig(
        **{"listen": ("127.0.0.1:0",), "folder": str(folder / "serving"), **(lan or {})}
    )
    with running(lan=made, **config) as here:
        yield Network(here.host, here.loop, made)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def read_all(sock: socket.socket) -> bytes:
    """Until the other side ends."""
    pieces = []
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)
