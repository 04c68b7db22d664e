"""As whom a client asks over TLS, and whom it takes for the agent.

Nothing is said to a server before it has proved who it is, and a token goes over TLS, or stays on
this machine.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.tls import UNVERIFIED, Tls, key_fingerprint
from edgefleet_agent.client.messages import Server
from edgefleet_contract.errors import OperatorError, Unverified


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks, by `token`, or by `certificate` and `key` (PEM files); and who may answer.

    The agent is known by `fingerprint` (`sha256//…`, of its key: `edge-agent certificate`), or else
    by a certificate that `ca` (PEM) vouches for, or else by one that this system's authorities do.
    """

    token: str = field(default="", repr=False)
    ca: str = ""
    fingerprint: str = ""
    certificate: str = ""
    key: str = ""

    def headers(self, where: Path | Server) -> dict[str, str]:
        """What goes with every call.

        Raises:
            OperatorError: the token would be seen by others, or is none.
        """
        if not self.token:
            return {}
        if isinstance(where, Server) and not where.is_tls and not _is_loopback(where.host):
            raise OperatorError(
                f"a token is not sent to {where.host} in the clear", hint="give https://HOST:PORT"
            )
        if not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            raise OperatorError("the token is none", hint="edge-agent token add NAME makes one")
        return {"Authorization": f"Bearer {self.token}"}

    def context(self) -> ssl.SSLContext:
        """For a connection to the agent; `check` completes it.

        Raises:
            OperatorError: a file cannot be read or is not what it should be.
        """
        try:
            if self.fingerprint:
                context = UNVERIFIED.context()
            elif self.ca:
                context = Tls(Path(self.ca).read_text("ascii", errors="ignore")).context()
            else:
                context = ssl.create_default_context()
                context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key or None)
        except OSError as error:  # ssl.SSLError is one
            names = ", ".join(name for name in (self.ca, self.certificate, self.key) if name)
            raise OperatorError(f"cannot use {names}: {error}") from None
        return context

    def check(self, certificate: bytes | None) -> None:
        """Hold the key of who answers against the fingerprint, before anything is said.

        Raises:
            Unverified: it has another.
        """
        if not self.fingerprint:
            return
        found = key_fingerprint(certificate or b"")
        if found != self.fingerprint.strip():
            raise Unverified(
                f"the server has the key {found}, expected {self.fingerprint}",
                hint="`edge-agent certificate` on the device shows its key",
            )


ANONYMOUS: Final = Credentials()
"""For sockets and loopback, where nobody is asked."""


def unverified(address: str, error: ssl.SSLCertVerificationError) -> Unverified:
    """A server whose certificate nobody vouches for, as our error."""
    return Unverified(
        f"{address} is not known to be the agent: {error.verify_message}",
        hint="give the fingerprint that `edge-agent certificate` shows on the device, or its ca",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
