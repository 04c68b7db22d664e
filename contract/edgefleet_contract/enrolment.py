"""How a device comes into a fleet and stays in it: what is asked, what is answered [wire-7].

A device enrols once, over HTTPS, with a secret or a claim; then it renews its certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from edgefleet_contract.bundle import is_digest, is_name
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.errors import Malformed

MAX_RETRY_AFTER_S: Final = 300


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """A device asks for a certificate; its keys were made on the device and stay there.

    `seal_key` is the public half of what opens sealed bundles, 64 hex digits; older agents have
    none. It stands in the certificate request as well, so that the device's key vouches for it.
    """

    SCHEMA: ClassVar[str] = "edgefleet.enrol/1"

    secret: str
    device: str
    csr: str
    capabilities: Capabilities
    seal_key: str = ""
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_name(self.device):
            raise Malformed(f"device name {self.device[:80]!r}")
        if self.seal_key and not is_digest(self.seal_key):
            raise Malformed("the seal key is not 64 lower-case hex digits")


@dataclass(frozen=True, slots=True)
class EnrolResponse:
    """The certificate, the broker, the TUF root as text, and where the rest of it is."""

    SCHEMA: ClassVar[str] = "edgefleet.enrolled/1"

    device: str
    certificate: str
    root: str
    metadata: str
    mqtt_host: str
    mqtt_port: int
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class EnrolPending:
    """An operator must say yes first: ask the same again in so many seconds [wire-7.6].

    `key_id` is the key that the fleet was asked for: what the operator sees, and the device prints.
    """

    SCHEMA: ClassVar[str] = "edgefleet.enrol-pending/1"

    device: str
    key_id: str
    retry_after_s: int
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_digest(self.key_id):
            raise Malformed("key_id is not 64 lower-case hex digits")
        if not 1 <= self.retry_after_s <= MAX_RETRY_AFTER_S:
            raise Malformed(f"retry_after_s {self.retry_after_s} is not 1 to {MAX_RETRY_AFTER_S}")


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """An enrolled device asks for its next certificate, for the key that it enrolled with."""

    SCHEMA: ClassVar[str] = "edgefleet.renew/1"

    device: str
    csr: str
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class CertificateResponse:
    """The next certificate of a device, PEM."""

    SCHEMA: ClassVar[str] = "edgefleet.renewed/1"

    device: str
    certificate: str
    schema: str = SCHEMA
