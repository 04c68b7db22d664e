"""The trust document: whom the devices of a fleet believe, and how a device first learns it.

`trust.json` lists the fleet's certificate authority, its director keys (who may write orders) and
its publisher keys (who may sign models). A claim, which a person carries from the fleet to the
device, holds the SHA-256 of that document, so the device takes it from any network: bytes in,
trust out, no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.bundle import Digest, is_digest, is_name, sha256
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import KeyRing, PublicKey

SCHEMA: Final = "edgefleet.trust/1"
_CLAIM_PREFIX: Final = "efc1"
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,64}")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom the devices of `fleet` believe. Keys and certificate are PEM texts."""

    fleet: str
    ca: str
    directors: tuple[str, ...]
    publishers: tuple[str, ...]
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_name(self.fleet):
            raise Malformed(f"fleet name {self.fleet[:80]!r}")
        for pem in (*self.directors, *self.publishers):
            PublicKey.from_pem(pem, what="trust document")

    @property
    def director_ring(self) -> KeyRing:
        """The keys that may sign orders."""
        return KeyRing.from_pems(self.directors)

    @property
    def publisher_ring(self) -> KeyRing:
        """The keys that may sign bundles."""
        return KeyRing.from_pems(self.publishers)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a person carries to a new device: the right to enrol once, and whom to believe."""

    fleet: str
    secret: str
    trust_sha256: Digest

    def render(self) -> str:
        """The one line that is typed or pasted."""
        return f"{_CLAIM_PREFIX}.{self.fleet}.{self.secret}.{self.trust_sha256}"


def parse_claim(text: str) -> Claim:
    """The claim in a line; the line itself is a secret and never stands in the error.

    Raises:
        Malformed: it is not a claim.
    """
    prefix, _, rest = text.strip().partition(".")
    body, _, digest = rest.rpartition(".")
    fleet, _, secret = body.rpartition(".")
    if prefix != _CLAIM_PREFIX or not is_name(fleet) or not is_digest(digest):
        raise Malformed(
            "this is not a claim", hint="it has the form efc1.<fleet>.<secret>.<digest>"
        )
    if _SECRET.fullmatch(secret) is None:
        raise Malformed("this is not a claim: its secret has the wrong form")
    return Claim(fleet, secret, Digest(digest))


def parse_trust(raw: bytes) -> Trust:
    """The trust document in canonical bytes, from a place that is trusted already.

    Raises:
        Malformed: it is not one.
    """
    value = canonical.parse(raw, what="trust document")
    if isinstance(value, dict) and value.get("schema") != SCHEMA:
        raise Malformed(f"trust document: schema {value.get('schema')!r}")
    return codec.decode(Trust, value, what="trust document")


def open_trust(raw: bytes, claim: Claim) -> Trust:
    """The trust document from anywhere, if it is the one that the claim names.

    Raises:
        Unverified: it is another.
        Malformed: it is the one, and not valid.
    """
    if sha256(raw) != claim.trust_sha256:
        raise Unverified(
            "the fleet's trust document is not the one that the claim names",
            hint="the fleet's keys changed since the claim was made, or this is not that fleet",
        )
    trust = parse_trust(raw)
    if trust.fleet != claim.fleet:
        raise Unverified(f"the trust document is of fleet {trust.fleet!r}, not {claim.fleet!r}")
    return trust


def render_trust(trust: Trust) -> bytes:
    """The canonical bytes of a trust document."""
    return canonical.render(codec.encode(trust))
