"""Predictions on the network: the `[serving.lan]` table.

There is TLS, and there is a credential: neither can be switched off. What may be chosen is which
credentials count (a bearer token, a client certificate, or either) and whose certificate is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgefleet_contract.errors import OperatorError


@dataclass(frozen=True, slots=True)
class LanConfig:
    """The `[serving.lan]` table; without it, nobody on the network is answered.

    `listen`: `host:port`; port 0 takes a free one. Who comes in: with `tokens`, whoever brings a
    token of `edge-agent token add`; with `client_ca` (PEM), whoever has a certificate of that
    authority and, if `clients` names any, one of these common names. With both, either is enough.
    `certificate` and `key` (PEM) are shown to clients; without them the agent makes its own, for
    the host's name, its addresses and `names`. `max_connections`: how many clients may be connected
    at once, half of them from one address. `folder` is for the tokens and for the certificate that
    the agent made; relative: below the state folder.
    """

    listen: tuple[str, ...]
    tokens: bool = True
    client_ca: str = ""
    clients: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    names: tuple[str, ...] = ()
    max_connections: int = 64
    folder: str = "serving"

    def __post_init__(self) -> None:
        if not self.listen or any(address.startswith("unix:") for address in self.listen):
            raise OperatorError(
                f"serving.lan.listen is {list(self.listen)}", hint='for example ["0.0.0.0:8501"]'
            )
        if not self.tokens and not self.client_ca:
            raise OperatorError(
                "serving.lan lets nobody in: no tokens, no client_ca",
                hint="tokens = true, or client_ca with the authority of your clients",
            )
        if self.clients and not self.client_ca:
            raise OperatorError(
                "serving.lan.clients names certificates, but there is no client_ca",
                hint="client_ca is the PEM file of the authority that made them",
            )
        if bool(self.certificate) != bool(self.key):
            raise OperatorError(
                "serving.lan has one of certificate and key",
                hint="give both, or neither: the agent makes its own",
            )
        if self.certificate and self.names:
            raise OperatorError(
                "serving.lan.names are for the certificate that the agent makes",
                hint="leave them out: the certificate that is given has its own",
            )
        if self.max_connections < 2:
            raise OperatorError(
                f"serving.lan.max_connections is {self.max_connections}", hint="2 or more"
            )

    @property
    def is_own(self) -> bool:
        """Whether the certificate is one that the agent makes."""
        return not self.certificate

    @property
    def certificate_file(self) -> Path:
        """The certificate that clients are shown."""
        return Path(self.certificate) if self.certificate else Path(self.folder) / "lan.crt"

    @property
    def key_file(self) -> Path:
        """Its key."""
        return Path(self.key) if self.key else Path(self.folder) / "lan.key"

    @property
    def tokens_file(self) -> Path:
        """The hashes of the tokens."""
        return Path(self.folder) / "tokens.json"

    def below(self, state: Path) -> LanConfig:
        """The same with absolute paths: relative ones are below the state folder."""

        def at(path: str) -> str:
            return str(state.absolute() / path) if path else ""

        return replace(
            self,
            client_ca=at(self.client_ca),
            certificate=at(self.certificate),
            key=at(self.key),
            folder=at(self.folder),
        )
