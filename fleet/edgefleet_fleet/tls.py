"""TLS of the HTTP port: the server's certificate, and who a client is by its own.

A client may bring a certificate of the fleet's authority and need not: people come with tokens,
devices with certificates, a new device with a claim. The handshake proves that the client has the
certificate's key; routes find what it says in `request.state.peer`. Whether that device is still
in service is asked of the store at every request (`access.py`), since a connection outlives a
revocation. A certificate of another authority, or one past its date, ends the handshake.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PublicKey
from edgefleet_fleet.authority import Authority
from edgefleet_fleet.config import Config, Tls
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.work import Room

log = logging.getLogger("edgefleet.tls")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a client proved to be: its certificate, the common name, and the id of its key."""

    name: str
    key_id: str
    certificate: x509.Certificate

    def is_of(self, authority: x509.Certificate) -> bool:
        """Whether this authority signed the certificate: the port may believe several."""
        try:
            self.certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The certificate and key that the HTTP port shows, and the context that uses them."""

    certificate: Path
    key: Path
    context: ssl.SSLContext

    @classmethod
    def of(cls, room: Room) -> ServerTls | None:
        """What the HTTP port of a room shows; None where it speaks in the clear.

        Raises:
            OperatorError: as `load`, or the data directory cannot be written.
        """
        return cls.of_port(room.keys, room.config, room.authority, base_url=room.base_url)

    @classmethod
    def of_port(
        cls, data: DataDir, config: Config, authority: Authority, *, base_url: str
    ) -> ServerTls | None:
        """As `of`, where no room is open yet."""
        if not config.is_tls:
            return None
        if config.tls is Tls.OWN:
            public = urlsplit(base_url).hostname or ""
            files = data.prepare_https(authority, config.public_host, public)
        else:
            files = Path(config.tls_cert), Path(config.tls_key)
        return cls.load(*files, client_ca=authority.pem)

    @classmethod
    def load(cls, certificate: Path, key: Path, *, client_ca: str) -> ServerTls:
        """TLS 1.2 or later with these PEM files; clients' certificates are of `client_ca` (PEM).

        Raises:
            OperatorError: the files cannot be read, or do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_ca)
        try:
            context.load_cert_chain(certificate, key)
        except OSError as error:  # ssl.SSLError is one
            raise OperatorError(
                f"cannot use the certificate {certificate} with the key {key}: {error}",
                hint="tls_cert and tls_key in fleet.toml name PEM files that belong together",
            ) from None
        return cls(certificate, key, context)

    def believe(self, client_ca: str) -> None:
        """Let in who has a certificate of this authority (PEM) too; new connections only.

        What a certificate is worth is the fleet's to say (`Peer.is_of`), so that one that was
        removed is no danger for as long as the process runs.
        """
        self.context.load_verify_locations(cadata=client_ca)

    def reload(self) -> None:
        """Show whatever the files hold now, to new connections; certificates are renewed there."""
        try:
            self.context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            log.error("cannot read %s again, the old one is shown: %s", self.certificate, error)


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1; every request of a connection is told who its client is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """A connection, its handshake done where there is one."""
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        raw = secured.getpeercert(binary_form=True) if secured is not None else None
        self.app_state = {**self.app_state, "peer": _read(raw) if raw else None}


def peer_of(request: Request) -> Peer | None:
    """Who the client of a request proved to be; None where it brought no certificate."""
    found: Peer | None = getattr(request.state, "peer", None)
    return found


def _read(der: bytes) -> Peer:
    """What a certificate says, of one of the authorities that the handshake believes."""
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    key = PublicKey.wrap(certificate.public_key(), what="client certificate")
    return Peer(str(names[0].value) if names else "", key.id, certificate)
