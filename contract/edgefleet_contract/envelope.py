"""DSSE envelopes: sign bytes, open verified bytes. The only door to a verified document.

Format: https://github.com/secure-systems-lab/dsse (v1). Signatures are checked before the body is
parsed: what `open_envelope` returns is bytes that enough trusted keys signed, and only it makes a
`Verified`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import KeyId, KeyRing, Signer
from edgefleet_contract.reasons import Reason

MAX_SIGNATURES: Final = 8


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope; `keyid` is a hint for look-up and proves nothing."""

    sig: str
    keyid: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it is on the wire: nothing in it is verified yet."""

    payload: str
    payloadType: str  # noqa: N815 - the field's name in the DSSE specification
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """Bytes that enough trusted keys signed."""

    payload: bytes
    signers: frozenset[KeyId]


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, *, payload_type: str, keys: tuple[Signer, ...]) -> Envelope:
    """The envelope of `payload`, signed by each of `keys`."""
    message = pae(payload_type, payload)
    return Envelope(
        payload=base64.b64encode(payload).decode("ascii"),
        payloadType=payload_type,
        signatures=tuple(
            Signature(base64.b64encode(key.sign(message)).decode("ascii"), key.public.id)
            for key in keys
        ),
    )


def render_envelope(envelope: Envelope) -> bytes:
    """The envelope as canonical JSON."""
    return canonical.render(codec.encode(envelope))


def open_envelope(
    raw: bytes,
    *,
    payload_type: str,
    ring: KeyRing,
    what: str,
    threshold: int = 1,
    max_bytes: int = canonical.MAX_BYTES,
) -> Verified:
    """The payload of an envelope that at least `threshold` distinct keys of `ring` signed.

    Raises:
        Malformed: not an envelope of this payload type.
        Unverified: UNKNOWN_KEY where no signature is by a key of the ring, BAD_SIGNATURE else.
    """
    value = canonical.parse_message(raw, what=what, max_bytes=max_bytes)
    return verify(codec.decode(Envelope, value, what=what), payload_type, ring, what, threshold)


def verify(
    envelope: Envelope, payload_type: str, ring: KeyRing, what: str, threshold: int = 1
) -> Verified:
    """The payload of a parsed envelope; see `open_envelope`."""
    if not len(ring):
        raise Unverified(f"{what}: no key is trusted for this", reason=Reason.UNKNOWN_KEY)
    if envelope.payloadType != payload_type:
        raise Malformed(f"{what}: payload type {envelope.payloadType[:60]!r}")
    if not 1 <= len(envelope.signatures) <= MAX_SIGNATURES:
        raise Malformed(f"{what}: {len(envelope.signatures)} signatures")
    payload = unbase64(envelope.payload, what=what)
    message = pae(payload_type, payload)
    known = False
    signers: set[KeyId] = set()
    for signature in envelope.signatures:
        key = ring.get(signature.keyid)
        if key is None:
            continue
        known = True
        if key.is_signature(unbase64(signature.sig, what=what), message):
            signers.add(key.id)
    if not known:
        found = ascii(envelope.signatures[0].keyid[:8])[1:-1] or "(unnamed)"
        raise Unverified(f"{what}: signed by unknown key {found}", reason=Reason.UNKNOWN_KEY)
    if len(signers) < threshold:
        raise Unverified(f"{what}: {len(signers)} good signatures of the {threshold} needed")
    return Verified(payload, frozenset(signers))


def unbase64(text: str, *, what: str) -> bytes:
    """Strict standard base64: one value has one spelling.

    Raises:
        Malformed: it is not, or not in its only spelling.
    """
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        raise Malformed(f"{what}: not base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise Malformed(f"{what}: base64 in another spelling")
    return raw
