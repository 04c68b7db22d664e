"""Public and private keys, their ids, and rings of trusted keys.

Ed25519 and ECDSA over P-256, P-384 and P-521 (with SHA-256, SHA-384, SHA-512) are known; nothing
else is. A key id is the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo [trust-1.1].
Verification needs `cryptography` alone. Private keys are written with mode 0600.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NewType, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from edgefleet_contract.errors import Malformed, OperatorError

KeyId = NewType("KeyId", str)

_CURVES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_NAMES: Final = {"secp256r1": "ECDSA P-256", "secp384r1": "ECDSA P-384", "secp521r1": "ECDSA P-521"}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that can verify. Two are equal when their ids are."""

    id: KeyId
    pem: str = field(compare=False)
    _key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey = field(compare=False, repr=False)

    @classmethod
    def from_pem(cls, pem: str | bytes, *, what: str = "public key") -> PublicKey:
        """The key in a PEM SubjectPublicKeyInfo.

        Raises:
            Malformed: not such a PEM, or an algorithm that is not known here.
        """
        raw = pem.encode() if isinstance(pem, str) else pem
        try:
            key = serialization.load_pem_public_key(raw)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed(f"{what}: not a PEM public key ({error})") from None
        return cls.wrap(key, what=what)

    @classmethod
    def wrap(cls, key: object, *, what: str = "public key") -> PublicKey:
        """A key object of `cryptography`, if its algorithm is one of ours.

        Raises:
            Malformed: it is not.
        """
        if isinstance(key, ec.EllipticCurvePublicKey):
            if key.curve.name not in _CURVES:
                raise Malformed(f"{what}: curve {key.curve.name} is not supported")
        elif not isinstance(key, ed25519.Ed25519PublicKey):
            raise Malformed(f"{what}: {type(key).__name__} is not supported")
        der = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(KeyId(hashlib.sha256(der).hexdigest()), text.decode("ascii"), key)

    @property
    def algorithm(self) -> str:
        """The name that people use for the algorithm."""
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return _NAMES[self._key.curve.name]
        return "Ed25519"

    @property
    def raw(self) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
        """The object of `cryptography`, for formats that are not ours."""
        return self._key

    def is_signature(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's over `message`."""
        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                digest = _CURVES[self._key.curve.name]()
                self._key.verify(signature, message, ec.ECDSA(digest))
            else:
                self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that can sign. Its repr shows the public id only."""

    public: PublicKey
    _key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = field(compare=False, repr=False)

    @classmethod
    def generate_ed25519(cls) -> PrivateKey:
        """A new Ed25519 key (director, repository)."""
        return cls.wrap(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def generate_p256(cls) -> PrivateKey:
        """A new ECDSA P-256 key (publisher, certificates)."""
        return cls.wrap(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def wrap(cls, key: object, *, what: str = "private key") -> PrivateKey:
        """A key object of `cryptography`, if its algorithm is one of ours.

        Raises:
            Malformed: it is not.
        """
        if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            raise Malformed(f"{what}: {type(key).__name__} is not supported")
        return cls(PublicKey.wrap(key.public_key(), what=what), key)

    @classmethod
    def load(cls, path: Path | str, *, passphrase: bytes | None = None) -> PrivateKey:
        """The key in a PKCS#8 PEM file.

        Raises:
            OperatorError: no such file, not readable, wrong passphrase, or not such a key.
        """
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            raise OperatorError(f"cannot read the key {path}: {error.strerror}") from None
        try:
            key = serialization.load_pem_private_key(raw, passphrase)
        except TypeError:
            if passphrase is None:
                raise OperatorError(
                    f"the key {path} is protected by a passphrase",
                    hint="give it in a file with --passphrase-file",
                ) from None
            raise OperatorError(f"the key {path} has no passphrase, but one was given") from None
        except (ValueError, UnsupportedAlgorithm) as error:
            if b"PUBLIC KEY" in raw:
                why, hint = "it holds a public one", "the private half is the file without .pub"
            elif passphrase is not None:
                why, hint = str(error), "is it the right passphrase?"
            else:
                why, hint = "it holds none in PEM", "a PEM file, as `keys new` makes it"
            raise OperatorError(f"{path} is not a usable private key: {why}", hint=hint) from None
        return cls.wrap(key, what=str(path))

    def to_pem(self, *, passphrase: bytes | None = None) -> bytes:
        """The key as PKCS#8 PEM, encrypted where a passphrase is given."""
        protection: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption()
        )
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )

    def save(self, path: Path, *, passphrase: bytes | None = None) -> None:
        """Write the key to a new file, mode 0600; an existing file is never replaced.

        Raises:
            OperatorError: the file exists, or cannot be written.
        """
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise OperatorError(
                f"{path} exists already", hint="keys are never overwritten; choose another name"
            ) from None
        except OSError as error:
            raise OperatorError(f"cannot write the key {path}: {error.strerror}") from None
        with os.fdopen(fd, "wb") as file:
            file.write(self.to_pem(passphrase=passphrase))
            file.flush()
            os.fsync(file.fileno())

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: raw for Ed25519, DER for ECDSA."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(message, ec.ECDSA(_CURVES[self._key.curve.name]()))
        return self._key.sign(message)

    @property
    def raw(self) -> ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey:
        """The object of `cryptography`, for formats that are not ours."""
        return self._key


class Signer(Protocol):
    """What signs: a `PrivateKey`, or a key that lives in a token and never leaves it."""

    @property
    def public(self) -> PublicKey:
        """The key that verifies what this one signs."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`: raw for Ed25519, DER for ECDSA."""
        ...


class KeyRing:
    """The keys that may vouch for one kind of document. An empty ring vouches for nothing."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        self._keys = {key.id: key for key in keys}

    @classmethod
    def from_pems(cls, pems: Iterable[str], *, what: str = "key ring") -> KeyRing:
        """The ring of PEM texts.

        Raises:
            Malformed: one of them is not a public key of ours.
        """
        return cls(PublicKey.from_pem(pem, what=what) for pem in pems)

    def get(self, key_id: str) -> PublicKey | None:
        """The key with this id, if it is in the ring."""
        return self._keys.get(KeyId(key_id))

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)
