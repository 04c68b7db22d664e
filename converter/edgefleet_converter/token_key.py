"""A publisher's key in a PKCS#11 token: it signs there and never leaves it.

The one adapter of `python-pkcs11`, loaded when a PKCS#11 URI is given. Tokens sign digests and
answer r and s side by side; signatures of bundles are DER, so both are done here. Each signature is
checked against the token's public key before it is given out: a token that holds two keys under one
name would otherwise make bundles that nobody accepts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edgefleet_contract.errors import Malformed, OperatorError
from edgefleet_contract.keys import PublicKey
from edgefleet_converter.pkcs11_uri import Pkcs11Uri

if TYPE_CHECKING:
    from pkcs11 import Session, Token

_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    "ECDSA P-256": hashlib.sha256,
    "ECDSA P-384": hashlib.sha384,
    "ECDSA P-521": hashlib.sha512,
}


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A `Signer` whose secret is in a token; usable while its token is open."""

    public: PublicKey
    _sign_digest: Callable[[bytes], bytes] = field(compare=False, repr=False)

    def sign(self, message: bytes) -> bytes:
        """The ECDSA signature over `message`, DER.

        Raises:
            OperatorError: the token refuses, or what it signs does not verify.
        """
        raw = self._sign_digest(_HASHES[self.public.algorithm](message).digest())
        half = len(raw) // 2
        r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        signature = encode_dss_signature(r, s)
        if not self.public.is_signature(signature, message):
            raise OperatorError(
                "the token's signature does not match its public key",
                hint="the private and the public object of that name are not one pair",
            )
        return signature


@contextmanager
def open_token_key(uri: Pkcs11Uri, pin: str) -> Iterator[TokenKey]:
    """The key that a URI names, while its token is open and logged in.

    Raises:
        OperatorError: no library, no token, no such key, more than one, a wrong or locked PIN, or a
            key that is not ECDSA.
    """
    with _translated(uri), _session(uri, pin) as session:
        from pkcs11 import Mechanism, ObjectClass

        public = _public(session, uri)
        private = _one(session, uri, ObjectClass.PRIVATE_KEY)

        def sign_digest(digest: bytes) -> bytes:
            with _translated(uri):
                return bytes(private.sign(digest, mechanism=Mechanism.ECDSA))

        yield TokenKey(public, sign_digest)


def read_public_key(uri: Pkcs11Uri, pin: str | None) -> PublicKey:
    """The public key that a URI names; most tokens show it without a PIN.

    Raises:
        OperatorError: as `open_token_key`.
    """
    with _translated(uri), _session(uri, pin) as session:
        return _public(session, uri)


@contextmanager
def _session(uri: Pkcs11Uri, pin: str | None) -> Iterator[Session]:
    token = _token(uri)
    with token.open(user_pin=pin) as session:
        yield session


def _token(uri: Pkcs11Uri) -> Token:
    import pkcs11

    if uri.module is None:
        raise OperatorError(
            "the URI does not say which library speaks to the token",
            hint="pkcs11:token=…;object=…?module-path=/usr/lib/softhsm/libsofthsm2.so",
        )
    if not uri.module.is_file():
        raise OperatorError(f"there is no PKCS#11 library {uri.module}")
    found = [
        token
        for slot in pkcs11.lib(str(uri.module)).get_slots(token_present=True)
        if _fits(token := slot.get_token(), uri)
    ]
    if len(found) != 1:
        what = "no token" if not found else f"{len(found)} tokens"
        raise OperatorError(
            f"{what} of {uri.module} fits the URI: {uri}",
            hint="token= is the label, serial= tells two of one label apart",
        )
    return found[0]


def _fits(token: Token, uri: Pkcs11Uri) -> bool:
    said = (
        (uri.token, token.label),
        (uri.serial, token.serial),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
    )
    return all(wanted is None or wanted == _words(found) for wanted, found in said)


def _words(found: str | bytes) -> str:
    """A field of a token: padded with blanks, sometimes with zeros."""
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
    return text.rstrip(" \0")


def _public(session: Session, uri: Pkcs11Uri) -> PublicKey:
    from pkcs11 import ObjectClass
    from pkcs11.util.ec import encode_ec_public_key

    found = _one(session, uri, ObjectClass.PUBLIC_KEY)
    try:
        public = PublicKey.wrap(load_der_public_key(encode_ec_public_key(found)), what=str(uri))
    except Malformed as error:
        raise OperatorError(error.message, hint="publisher keys are ECDSA P-256") from None
    except (ValueError, TypeError) as error:
        raise OperatorError(f"{uri}: its public key cannot be read ({error})") from None
    return public


def _one(session: Session, uri: Pkcs11Uri, kind: Any) -> Any:
    from pkcs11 import Attribute, KeyType

    wanted: dict[Attribute, Any] = {Attribute.CLASS: kind}
    if uri.label is not None:
        wanted[Attribute.LABEL] = uri.label
    if uri.id is not None:
        wanted[Attribute.ID] = uri.id
    word = kind.name.lower().replace("_", " ")
    found: list[Any] = list(session.get_objects(wanted))
    if len(found) != 1:
        fits = f"{len(found)} {word}s fit" if found else f"no {word} fits"
        raise OperatorError(
            f"{fits}: {uri}",
            hint="object= is the label, id= tells two of one label apart",
        )
    if found[0].key_type != KeyType.EC:
        raise OperatorError(f"{uri} is not an ECDSA key", hint="publisher keys are ECDSA P-256")
    return found[0]


@contextmanager
def _translated(uri: Pkcs11Uri) -> Iterator[None]:
    """Turn what `python-pkcs11` raises into what a person can act on."""
    try:
        from pkcs11 import exceptions as foreign
    except ModuleNotFoundError:
        raise OperatorError(
            "keys in a token need python-pkcs11, which is not installed",
            hint="pip install 'edgefleet[converter,converter-pkcs11]'",
        ) from None
    try:
        yield
    except (foreign.PinIncorrect, foreign.PinInvalid, foreign.PinLenRange):
        raise OperatorError(
            f"{uri}: the PIN is wrong", hint="most tokens lock after a few wrong ones"
        ) from None
    except foreign.PinLocked:
        raise OperatorError(
            f"{uri}: the PIN is locked", hint="its security officer can unlock it"
        ) from None
    except foreign.PKCS11Error as error:
        said = str(error) or type(error).__name__
        raise OperatorError(f"{uri}: the token answers: {said}") from None
