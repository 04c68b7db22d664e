"""Sealed bundles: files that only the devices they were sealed for can read [bundle-7].

One data encryption key (DEK) seals the files of one bundle; the DEK is sealed for each device.

    DEK ── HKDF-SHA256 (bundle, path) ──▶ key of a file ── ChaCha20-Poly1305, 64 KiB chunks ──▶ file
     └──── HPKE, RFC 9180 base mode (fleet, device, bundle) ──▶ 80 bytes for one device

What is sealed are the bytes that `bundle.json` names and `model.sig` signs, so sealing changes no
digest and vouches for nothing: what was opened is checked against the manifest as ever. A DEK is
made anew for each bundle. Under one DEK the digest of the bundle fixes the bytes of each path, so
no nonce meets two texts. Nothing here touches a disk; what is opened belongs in memory only.

Laws: `open_file(d, b, p, seal_file(d, b, p, raw)) == raw`;
`open_dek(seal_dek(d, key.public_key(), …), key, …) == d`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edgefleet_contract.bundle import (
    CHUNK_SIZE,
    MAX_FILE_SIZE,
    Digest,
    is_digest,
    is_name,
    is_safe_path,
)
from edgefleet_contract.errors import DeviceError, Malformed, Unverified
from edgefleet_contract.reasons import Reason

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

DEK_SIZE: Final = 32
KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
SEALED_DEK_SIZE: Final = 32 + DEK_SIZE + TAG_SIZE
"""The encapsulated X25519 key, the DEK, the tag."""

_DOMAIN: Final = "edgefleet.sealed/1"
_SEALED_CHUNK: Final = CHUNK_SIZE + TAG_SIZE
_MAX_CHUNKS: Final = MAX_FILE_SIZE // CHUNK_SIZE


@dataclass(frozen=True, slots=True)
class Dek:
    """The key of one bundle's files. Its repr says nothing.

    Raises:
        Malformed: not 32 bytes.
    """

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != DEK_SIZE:
            raise Malformed(f"a data encryption key of {len(self.raw)} bytes, it has {DEK_SIZE}")


def make_dek() -> Dek:
    """A new key, from the system's randomness."""
    return Dek(secrets.token_bytes(DEK_SIZE))


def parse_seal_key(text: str) -> X25519PublicKey:
    """The public key, as a device says it: 64 lower-case hex digits, that can be sealed for.

    Raises:
        Malformed: it is spelled otherwise, or shares the same secret with everybody (a point of
            low order).
    """
    if not is_digest(text):
        raise Malformed("a seal key is 64 lower-case hex digits")
    key = X25519PublicKey.from_public_bytes(bytes.fromhex(text))
    try:
        X25519PrivateKey.generate().exchange(key)
    except ValueError:
        raise Malformed(f"the seal key {text[:12]} cannot be sealed for") from None
    return key


def render_seal_key(key: X25519PublicKey) -> str:
    """How a device says its public key."""
    return key.public_bytes_raw().hex()


def seal_file(dek: Dek, bundle: Digest, path: str, raw: bytes) -> bytes:
    """The sealed bytes of a file; `sealed_size(len(raw))` of them. The same input, the same bytes.

    Args:
        dek: the key of the bundle.
        bundle: the SHA-256 of its `bundle.json`.
        path: of the file in the bundle.
        raw: its bytes, exactly those that the manifest names.

    Raises:
        Malformed: `bundle` or `path` is not spelled as one, or `raw` is too large (TOO_LARGE).
    """
    return b"".join(seal_chunks(dek, bundle, path, (raw,)))


def open_file(dek: Dek, bundle: Digest, path: str, sealed: bytes) -> bytes:
    """The bytes that were sealed as this file of this bundle with this key.

    Raises:
        Unverified: UNSEALING_FAILED for any change, cut or exchange of the sealed bytes, another
            path, bundle or key.
        Malformed: `bundle` or `path` is not spelled as one.
    """
    return b"".join(open_chunks(dek, bundle, path, (sealed,)))


def seal_chunks(dek: Dek, bundle: Digest, path: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`seal_file` for a stream: pieces of any size in, sealed chunks out."""
    cipher, bound = _cipher(dek, bundle, path)
    for index, (chunk, is_last) in enumerate(_chunks(pieces, CHUNK_SIZE)):
        if index >= _MAX_CHUNKS:
            raise Malformed(f"{path}: over {MAX_FILE_SIZE} bytes", reason=Reason.TOO_LARGE)
        yield cipher.encrypt(_nonce(index, is_last), chunk, bound)


def open_chunks(dek: Dek, bundle: Digest, path: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`open_file` for a stream: pieces of any size in, opened chunks out.

    Each chunk is authentic when it is given out, but only the end of the iteration says that the
    file is whole: what a cut stream gave is to be thrown away when this raises.
    """
    return open_chunks_with(file_key(dek, bundle, path), bundle, path, pieces)


def file_key(dek: Dek, bundle: Digest, path: str) -> bytes:
    """The 32 bytes that open one file of the bundle, and nothing else [bundle-7.2].

    Raises:
        Malformed: `bundle` or `path` is not spelled as one.
    """
    info = f"{_DOMAIN}|file|".encode("ascii") + _bound(bundle, path)
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=info).derive(dek.raw)


def open_chunks_with(
    key: bytes, bundle: Digest, path: str, pieces: Iterable[bytes]
) -> Iterator[bytes]:
    """`open_chunks` with the key of the file, for whoever is not told the DEK."""
    cipher, bound = ChaCha20Poly1305(key), _bound(bundle, path)
    for index, (chunk, is_last) in enumerate(_chunks(pieces, _SEALED_CHUNK)):
        # A last chunk is empty in an empty file only: one file has one sealed form.
        if index >= _MAX_CHUNKS or (is_last and index > 0 and len(chunk) == TAG_SIZE):
            raise _unsealing_failed(f"{path}: chunk {index} is not one that is ever sealed")
        try:
            yield cipher.decrypt(_nonce(index, is_last), chunk, bound)
        except InvalidTag:
            raise _unsealing_failed(
                f"{path}: chunk {index} is not what was sealed, or not for this bundle, path or key"
            ) from None


def sealed_size(size: int) -> int:
    """How many bytes a file of `size` bytes has when it is sealed.

    Raises:
        Malformed: TOO_LARGE, or a negative size.
    """
    if not 0 <= size <= MAX_FILE_SIZE:
        raise Malformed(
            f"{size} bytes, at most {MAX_FILE_SIZE} are sealed", reason=Reason.TOO_LARGE
        )
    return size + TAG_SIZE * max(1, -(-size // CHUNK_SIZE))


def seal_dek(
    dek: Dek, device_public: X25519PublicKey, *, fleet: str, device: str, bundle: Digest
) -> bytes:
    """The key, sealed for one device of one fleet and for one bundle: 80 bytes, new each time.

    Raises:
        Malformed: a name or the digest is not spelled as one, or the public key is one that shares
            the same secret with everybody (a point of low order).
        DeviceError: `cryptography` here is older than 47 and knows no HPKE.
    """
    info = _info(fleet, device, bundle)
    try:
        return _suite().encrypt(dek.raw, device_public, info=info)
    except ValueError:
        raise Malformed(f"the public key of {device} cannot be sealed for") from None


def open_dek(
    sealed: bytes, device_private: X25519PrivateKey, *, fleet: str, device: str, bundle: Digest
) -> Dek:
    """The key that was sealed for this device and this bundle.

    Raises:
        Unverified: UNSEALING_FAILED: changed, cut, for another device, fleet or bundle.
        Malformed: a name or the digest is not spelled as one.
        DeviceError: `cryptography` here is older than 47 and knows no HPKE.
    """
    info = _info(fleet, device, bundle)
    if len(sealed) != SEALED_DEK_SIZE:
        raise _unsealing_failed(f"a sealed key of {len(sealed)} bytes, it has {SEALED_DEK_SIZE}")
    try:
        return Dek(_suite().decrypt(sealed, device_private, info=info))
    except (InvalidTag, ValueError):
        raise _unsealing_failed(
            f"the sealed key is not for device {device} of fleet {fleet} and this bundle"
        ) from None


def _suite() -> Suite:
    try:
        from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
    except ImportError:
        raise DeviceError(
            "sealed bundles need cryptography 47 or later, which has HPKE",
            reason=Reason.UNSEALING_FAILED,
            hint="pip install --upgrade 'cryptography>=47'",
        ) from None
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _info(fleet: str, device: str, bundle: Digest) -> bytes:
    if not is_name(fleet) or not is_name(device) or not is_digest(bundle):
        raise Malformed(f"cannot seal for {device[:80]!r} of {fleet[:80]!r}, {bundle[:80]!r}")
    return f"{_DOMAIN}|dek|{fleet}|{device}|{bundle}".encode("ascii")


def _cipher(dek: Dek, bundle: Digest, path: str) -> tuple[ChaCha20Poly1305, bytes]:
    """The cipher of a file, and the data that each of its chunks is bound to."""
    return ChaCha20Poly1305(file_key(dek, bundle, path)), _bound(bundle, path)


def _bound(bundle: Digest, path: str) -> bytes:
    if not is_digest(bundle) or not is_safe_path(path):
        raise Malformed(f"cannot seal {path[:80]!r} of {bundle[:80]!r}")
    return f"{bundle}|{path}".encode("ascii")


def _nonce(index: int, is_last: bool) -> bytes:
    return bytes(7) + index.to_bytes(4, "big") + bytes([is_last])


def _chunks(pieces: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces cut anew into `size` bytes, with whether it is the last; at least one."""
    held = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), size):
            held += view[start : start + size]
            if len(held) > size:
                yield bytes(held[:size]), False
                del held[:size]
    yield bytes(held), True


def _unsealing_failed(found: str) -> Unverified:
    return Unverified(found, reason=Reason.UNSEALING_FAILED)
