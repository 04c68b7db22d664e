"""What a director signs for devices: what one should run, and what time it is.

They cross in envelopes, which `messages` seals and opens.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import ClassVar, Final

from edgefleet_contract.bundle import Digest, is_digest, is_name
from edgefleet_contract.errors import Malformed
from edgefleet_contract.order_policy import DEFAULT_POLICY, Policy

MAX_ORDER_LIFE_S: Final = 14 * 24 * 3600
_SEALED_DEK: Final = re.compile(r"[A-Za-z0-9+/]{106}[AEIMQUYcgkosw048]=")


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one device needs to open a sealed bundle: the DEK, sealed for it, and which blobs.

    `dek` is the base64 of `sealed.seal_dek`. HPKE gives other bytes at each sealing, so it does not
    count when targets are compared: an order that is signed again asks for nothing new. The index
    does, so a bundle in the clear and the same one sealed are two targets.
    """

    dek: str = field(compare=False, repr=False)
    index_sha256: Digest

    def __post_init__(self) -> None:
        if _SEALED_DEK.fullmatch(self.dek) is None:
            raise Malformed("a sealed key is 80 bytes in base64")
        if not is_digest(self.index_sha256):
            raise Malformed("the index's digest is not 64 lower-case hex digits")

    @property
    def sealed_dek(self) -> bytes:
        """The 80 bytes."""
        return base64.b64decode(self.dek)


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a device should run: which bundle, in which slot.

    `slot` is the name under which the model is served. `max_bytes` bounds what is downloaded, in
    plain bytes. `sealed` is given where the files are to be had sealed only [bundle-7.8].
    """

    slot: str
    model: str
    version: int
    bundle_sha256: Digest
    signature_sha256: Digest
    max_bytes: int
    sealed: Sealed | None = None

    def __post_init__(self) -> None:
        if not is_name(self.slot) or not is_name(self.model):
            raise Malformed(f"slot {self.slot[:80]!r} of model {self.model[:80]!r}")
        if not is_digest(self.bundle_sha256) or not is_digest(self.signature_sha256):
            raise Malformed(f"slot {self.slot}: a digest is not 64 lower-case hex digits")
        if self.version < 1 or self.max_bytes < 0:
            raise Malformed(f"slot {self.slot}: version {self.version}, {self.max_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Order:
    """What one device should run from now on: all of `targets`, and nothing else.

    `seq` rises with every order for the device; `sources` are base URLs of shelves, tried in turn;
    `metadata` are base URLs of TUF repositories, and `metadata_min` is the lowest version of the
    TUF timestamp with which this order may be judged.
    """

    SCHEMA: ClassVar[str] = "edgefleet.order/1"

    fleet: str
    device: str
    seq: int
    issued: int
    expires: int
    rollout: str
    targets: tuple[Target, ...]
    sources: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    metadata_min: int = 0
    allow_downgrade: bool = False
    policy: Policy = DEFAULT_POLICY
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        slots = [target.slot for target in self.targets]
        if len(set(slots)) != len(slots):
            raise Malformed("two targets for one slot")


@dataclass(frozen=True, slots=True)
class SignedTime:
    """The time, by a director, for boards without a clock; `time` is seconds since 1970."""

    SCHEMA: ClassVar[str] = "edgefleet.time/1"

    fleet: str
    time: int
    schema: str = SCHEMA
