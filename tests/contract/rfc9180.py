"""HPKE, read from RFC 9180 a second time: base mode, X25519, HKDF-SHA256, ChaCha20-Poly1305.

For tests: what the product seals with a library must open with this, and the other way round.
Each function carries the name and the section that it has in the RFC.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

KEM_SUITE = b"KEM" + bytes.fromhex("0020")
SUITE = b"HPKE" + bytes.fromhex("0020 0001 0003")


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """Section 4; Extract is RFC 5869's."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """Section 4; Expand is RFC 5869's."""
    full = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    made, block = b"", b""
    while len(made) < length:
        block = hmac.digest(prk, block + full + bytes([len(made) // 32 + 1]), hashlib.sha256)
        made += block
    return made[:length]


def shared_secret(dh: bytes, enc: bytes, receiver: bytes) -> bytes:
    """Section 4.1, ExtractAndExpand with the context of Encap and Decap."""
    prk = labeled_extract(KEM_SUITE, b"", b"eae_prk", dh)
    return labeled_expand(KEM_SUITE, prk, b"shared_secret", enc + receiver, 32)


def key_schedule(secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Section 5.1, mode_base: the key and the base nonce."""
    context = (
        b"\0"
        + labeled_extract(SUITE, b"", b"psk_id_hash", b"")
        + labeled_extract(SUITE, b"", b"info_hash", info)
    )
    prk = labeled_extract(SUITE, secret, b"secret", b"")
    key = labeled_expand(SUITE, prk, b"key", context, 32)
    return key, labeled_expand(SUITE, prk, b"base_nonce", context, 12)


def seal(
    ephemeral: X25519PrivateKey, receiver: X25519PublicKey, info: bytes, aad: bytes, raw: bytes
) -> tuple[bytes, bytes]:
    """Section 6.1, SealBase with a given ephemeral key: enc and ciphertext."""
    enc = ephemeral.public_key().public_bytes_raw()
    secret = shared_secret(ephemeral.exchange(receiver), enc, receiver.public_bytes_raw())
    key, nonce = key_schedule(secret, info)
    return enc, ChaCha20Poly1305(key).encrypt(nonce, raw, aad)


def open_(enc: bytes, receiver: X25519PrivateKey, info: bytes, aad: bytes, sealed: bytes) -> bytes:
    """Section 6.1, OpenBase."""
    dh = receiver.exchange(X25519PublicKey.from_public_bytes(enc))
    secret = shared_secret(dh, enc, receiver.public_key().public_bytes_raw())
    key, nonce = key_schedule(secret, info)
    return ChaCha20Poly1305(key).decrypt(nonce, sealed, aad)
