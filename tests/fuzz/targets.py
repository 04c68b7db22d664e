"""What reads a stranger's bytes: each target takes any bytes, and refuses them in our own words.

A `PeerError` (or `TransientError`, from a source of metadata) is an answer; anything else that is
raised is a fault. What is read twice must be the same twice.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edgefleet_agent.adapters.tuf_client import TufClient
from edgefleet_contract import bundle, canonical, codec, messages
from edgefleet_contract.envelope import render_envelope, seal
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.messages import ORDER_TYPE
from edgefleet_contract.model_signature import open_bundle
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.reported import Event
from edgefleet_contract.trust import (
    FleetPolicy,
    RevokedPolicy,
    TrustFloors,
    parse_claim,
    parse_policy,
    render_policy,
)
from tests.agent.repository import Repository

VECTORS: Final = Path(__file__).parents[1] / "vectors"
DIRECTOR: Final = PrivateKey.load(VECTORS / "keys" / "director.pem")
PUBLISHER: Final = PrivateKey.load(VECTORS / "keys" / "publisher.pem")
MANIFEST: Final = (VECTORS / "signature" / "bundle.json").read_bytes()
REPOSITORY: Final = Repository()
ROLES: Final = ("timestamp.json", "1.snapshot.json", "1.targets.json", "2.root.json")


def order(raw: bytes) -> None:
    """The envelope: nobody's signature is taken for the director's."""
    found = messages.open_order(raw, KeyRing([DIRECTOR.public]))
    assert messages.open_order(messages.seal_order(found, DIRECTOR), KeyRing([DIRECTOR.public]))


def order_body(raw: bytes) -> None:
    """What a stolen director key could sign."""
    sealed = render_envelope(seal(raw, payload_type=ORDER_TYPE, keys=(DIRECTOR,)))
    order(sealed)


def manifest(raw: bytes) -> None:
    """`bundle.json`: one spelling for one content."""
    assert bundle.render_manifest(bundle.parse_manifest(raw)) == raw


def model_signature(raw: bytes) -> None:
    """`model.sig` of a bundle that is as it must be."""
    assert open_bundle(MANIFEST, raw, KeyRing([PUBLISHER.public])).manifest.name == "digits-3"


def strict_json(raw: bytes) -> None:
    """Canonical JSON is read as it is written; what others wrote, at all or not."""
    with contextlib.suppress(PeerError):
        messages.parse(Event, raw)
    with contextlib.suppress(PeerError):
        canonical.parse_message(raw, what="x")
    assert canonical.render(canonical.parse(raw, what="x")) == raw


def policy(raw: bytes) -> None:
    """The two policies that publishers sign, and a claim."""
    for kind in (FleetPolicy, RevokedPolicy):
        with contextlib.suppress(PeerError):
            parse_policy(kind, raw, what="policy")
    parse_claim(raw.decode("utf-8", "replace"))


class _With:
    """An honest repository, but for one document."""

    def __init__(self, role: str, raw: bytes) -> None:
        self._role, self._raw = role, raw

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """See `MetadataSource`."""
        if name == self._role:
            yield self._raw[: max_bytes + 1]
        else:
            yield from REPOSITORY.read(name, max_bytes)


def metadata(raw: bytes) -> None:
    """A TUF document; the first byte says in whose place."""
    role, now = ROLES[raw[0] % len(ROLES)] if raw else ROLES[0], int(REPOSITORY.now.timestamp())
    with tempfile.TemporaryDirectory() as folder:
        client = TufClient(Path(folder), REPOSITORY.root)
        trust = client.refresh((_With(role, raw[1:]),), now=now, floors=TrustFloors())
    assert trust.publishers == (REPOSITORY.publisher.public,)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    one.__name__: one
    for one in (order, order_body, manifest, model_signature, strict_json, policy, metadata)
}


def attempt(name: str, raw: bytes) -> None:
    """Run one target; what it refuses in our own words is well.

    Raises:
        Exception: a fault.
    """
    with contextlib.suppress(PeerError, TransientError):
        TARGETS[name](raw)


def seeds(name: str) -> list[bytes]:
    """Bytes to begin with: the vectors of that kind, or what our own code writes."""
    kind = {"model_signature": "signature", "strict_json": "canonical"}.get(name, name)
    if name == "metadata":
        return [
            bytes([number]) + REPOSITORY.documents.get(role, REPOSITORY.root)
            for number, role in enumerate(ROLES)
        ]
    if name == "policy":
        claim = f"efc1.demo.{'s' * 22}.{'0' * 64}".encode()
        return [claim, render_policy(REPOSITORY.policy), render_policy(RevokedPolicy())]
    if name == "order_body":
        target = Target("digits", "digits", 3, bundle.Digest("a" * 64), bundle.Digest("b" * 64), 9)
        sealed = Order("demo", "pi-1", 7, 1, 2, "r-1", (target,))
        return [canonical.render(codec.encode(sealed))]
    files = sorted((VECTORS / kind).glob("*.vector"))
    return [file.read_bytes().partition(b"\n\n")[2] for file in files]
