"""Hostile `model.sig`: other keys, other curves, other encodings, and every byte changed or cut."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from edgefleet_contract import bundle as b
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.envelope import pae
from edgefleet_contract.keys import KeyRing, PrivateKey, PublicKey
from edgefleet_contract.model_signature import PAYLOAD_TYPE, open_bundle
from edgefleet_contract.reasons import Reason
from tests.hostile.attempts import OPERATOR, Attempt, hostile
from tests.hostile.ground import Ground

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FLIPS = (0x01, 0x20, 0x80)


def doors(ground: Ground, name: str, signature: bytes, **more: Any) -> Iterator[Attempt]:
    """A signature for the good manifest, at each door through which one comes."""
    yield Attempt(f"{name}: opened", lambda: ground.open(None, signature), **more)
    yield Attempt(f"{name}: in a directory", lambda: ground.verify(None, signature), **more)
    yield Attempt(
        f"{name}: fetched", lambda: ground.bring(None, signature), trace=ground.on_disk, **more
    )


def with_envelope(ground: Ground, **fields: object) -> bytes:
    """The good `model.sig` with other fields in its envelope."""
    document = json.loads(ground.signature)
    document["dsseEnvelope"] |= fields
    return json.dumps(document).encode()


def with_raw(ground: Ground, raw: bytes) -> bytes:
    """The good `model.sig` with other signature bytes."""
    return with_envelope(ground, signatures=[{"sig": base64.b64encode(raw).decode()}])


def with_hint(ground: Ground, hint: str) -> bytes:
    """The good `model.sig` that names another key."""
    document = json.loads(ground.signature)
    document["verificationMaterial"]["publicKey"]["hint"] = hint
    return json.dumps(document).encode()


def parts(ground: Ground) -> tuple[bytes, bytes]:
    """The payload and the raw signature of the good `model.sig`."""
    envelope = json.loads(ground.signature)["dsseEnvelope"]
    return base64.b64decode(envelope["payload"]), base64.b64decode(envelope["signatures"][0]["sig"])


@hostile(
    "signatures",
    Reason.MALFORMED,
    Reason.BAD_SIGNATURE,
    Reason.UNKNOWN_KEY,
    Reason.BUNDLE_MISMATCH,
    Reason.TOO_LARGE,
)
def signatures(ground: Ground) -> Iterator[Attempt]:
    """Swapped, stripped, doubled, of another kind, over another body, lying about itself."""
    payload, raw = parts(ground)
    signed = json.loads(ground.signature)["dsseEnvelope"]["signatures"]
    encoded = base64.b64encode(payload).decode()
    hint = json.loads(ground.signature)["verificationMaterial"]["publicKey"]["hint"]
    stranger_hint = hashlib.sha256(ground.stranger.public.pem.encode()).hexdigest()
    over_json = base64.b64encode(ground.publisher.sign(payload)).decode()
    other_pae = ground.publisher.sign(pae("text/plain", payload))
    for name, signature in {
        "of the other version": (ground.old / b.SIGNATURE).read_bytes(),
        "by a stranger": ground.wrap(payload, ground.stranger),
        "by a stranger who names the publisher": rehint(
            ground.wrap(payload, ground.stranger), hint
        ),
        "by the publisher under a stranger's name": with_hint(ground, stranger_hint),
        "by nobody": with_hint(ground, ""),
        "by a path": with_hint(ground, "../publisher"),
        "stripped": with_envelope(ground, signatures=[]),
        "doubled": with_envelope(ground, signatures=signed * 2),
        "doubled with a stranger's": with_envelope(
            ground, signatures=[*signed, {"sig": "AAAA", "keyid": ""}]
        ),
        "empty": with_raw(ground, b""),
        "a zero": with_raw(ground, bytes(64)),
        "r and s are zero": with_raw(ground, encode_dss_signature(0, 0)),
        "r and s are the order": with_raw(ground, encode_dss_signature(P256_ORDER, P256_ORDER)),
        "raw instead of DER": with_raw(ground, as_raw(raw)),
        "DER with a byte more": with_raw(ground, raw + b"\0"),
        "DER of another length": with_raw(ground, raw[:1] + b"\x81" + raw[1:]),
        "DER with leading zeros": with_raw(ground, padded(raw)),
        "over the payload alone": with_envelope(ground, signatures=[{"sig": over_json}]),
        "over another payload type": with_raw(ground, other_pae),
        "another payload type": with_envelope(ground, payloadType="text/plain"),
        "no payload": with_envelope(ground, payload=""),
        "a payload of a byte more": with_envelope(
            ground, payload=base64.b64encode(payload + b" ").decode()
        ),
        "payload in URL base64": with_envelope(
            ground, payload=base64.urlsafe_b64encode(payload + b"\xff\xfe").decode()
        ),
        "payload with a line break": with_envelope(ground, payload=encoded[:76] + "\n" + encoded),
        "payload as a list": with_envelope(ground, payload=[encoded]),
        "payload as nothing": with_envelope(ground, payload=None),
        "another media type": ground.signature.replace(b"v0.3+json", b"v0.4+json"),
        "an unknown field": b'{"more":1,' + ground.signature[1:],
        "not JSON": b"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
        "a certificate": ground.publisher.public.pem.encode(),
        "huge": b" " * (1024 * 1024) + ground.signature,
        "nothing": b"",
    }.items():
        assert signature != ground.signature, name
        yield from doors(ground, name, signature)
    yield from doors(ground, "malleated", with_raw(ground, malleated(raw)), same=ground.digest)


def rehint(signature: bytes, hint: str) -> bytes:
    """A `model.sig` that says another key made it."""
    document = json.loads(signature)
    document["verificationMaterial"]["publicKey"]["hint"] = hint
    return json.dumps(document).encode()


def malleated(raw: bytes) -> bytes:
    """The other signature that ECDSA gives for free: (r, n - s)."""
    r, s = decode_dss_signature(raw)
    return encode_dss_signature(r, P256_ORDER - s)


def as_raw(raw: bytes) -> bytes:
    """r and s side by side, as IEEE P1363 has them."""
    r, s = decode_dss_signature(raw)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def padded(raw: bytes) -> bytes:
    """BER that is not DER: an integer with zeros in front."""
    r, s = (value.to_bytes(33, "big") for value in decode_dss_signature(raw))
    body = b"".join(bytes([2, len(part) + 2]) + b"\0\0" + part for part in (r, s))
    return bytes([0x30, len(body)]) + body


STATEMENTS: dict[str, tuple[str, object]] = {
    "another method": ("predicate.serialization.method", "shards"),
    "another hash": ("predicate.serialization.hash_type", "sha1"),
    "another algorithm of a file": ("predicate.resources.0.algorithm", "md5"),
    "an empty digest of a file": ("predicate.resources.0.digest", ""),
    "a digest in capitals": ("predicate.resources.0.digest", "A" * 64),
    "a digest with blanks": ("predicate.resources.0.digest", " ".join(["aa"] * 32)),
    "a file by another name": ("predicate.resources.0.name", "../bundle.json"),
    "no files": ("predicate.resources", []),
    "another subject": ("subject.0.name", "digits-1"),
    "two subjects": ("subject", [{"name": "digits-2", "digest": {}}] * 2),
    "no subject": ("subject", []),
    "another root digest": ("subject.0.digest", {"sha256": "0" * 64}),
    "two root digests": ("subject.0.digest", {"sha256": "0" * 64, "sha512": "0" * 128}),
    "another predicate": ("predicateType", "https://slsa.dev/provenance/v1"),
    "another statement": ("_type", "https://in-toto.io/Statement/v0.1"),
    "no predicate": ("predicate", None),
    "a list": ("predicate", []),
}


@hostile("statements", Reason.MALFORMED, Reason.BUNDLE_MISMATCH)
def statements(ground: Ground) -> Iterator[Attempt]:
    """A statement that the publisher signed, and that does not state what it must."""
    for name, (where, what) in STATEMENTS.items():
        statement = ground.statement
        node: Any = statement
        *way, last = where.split(".")
        for step in way:
            node = node[int(step) if isinstance(node, list) else step]
        node[last] = what
        yield from doors(ground, name, ground.sign_statement(statement))
    for name, fields in {
        "ignores everything": {"ignore_paths": ["."]},
        "allows links": {"allow_symlinks": True},
    }.items():
        statement = ground.statement
        statement["predicate"]["serialization"] |= fields
        signature = ground.sign_statement(statement)
        yield Attempt(f"{name}: opened", lambda s=signature: ground.open(None, s), ground.digest)


@hostile("keys", Reason.UNKNOWN_KEY, Reason.MALFORMED, Reason.BAD_SIGNATURE)
def keys(ground: Ground) -> Iterator[Attempt]:
    """No key, an unreadable key, a key of another kind or curve: nothing is ever skipped."""
    ed25519 = PrivateKey.generate_ed25519()
    p384 = PrivateKey.wrap(ec.generate_private_key(ec.SECP384R1()))
    payload, _ = parts(ground)
    good = (ground.manifest, ground.signature)
    yield Attempt("an empty ring", lambda: open_bundle(*good, KeyRing()))
    yield Attempt("an empty ring: a directory", lambda: verify_directory(ground.good, KeyRing()))
    yield Attempt("another ring", lambda: open_bundle(*good, KeyRing([p384.public])))
    mixed = KeyRing([ground.publisher.public, ed25519.public, p384.public])
    by_ed25519 = ground.wrap(payload, ed25519)
    yield Attempt("Ed25519 in model.sig", lambda: open_bundle(good[0], by_ed25519, mixed))
    named = hashlib.sha256(p384.public.pem.encode()).hexdigest()
    lying = rehint(ground.signature, named)
    yield Attempt("P-256 that says P-384", lambda: open_bundle(good[0], lying, mixed))
    weak = PrivateKey.wrap(ec.generate_private_key(ec.SECP384R1()))
    with_sha1 = weak.raw.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    other_hash = with_key(ground, with_sha1, weak)
    yield Attempt(
        "P-384 with SHA-256", lambda: open_bundle(good[0], other_hash, KeyRing([weak.public]))
    )
    unreadable = {
        "no PEM": b"",
        "half a PEM": ground.publisher.public.pem.encode()[:60],
        "a PEM of nothing": b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        "a private key": ground.publisher.to_pem(),
        "an RSA key": pem(rsa.generate_private_key(65537, 2048).public_key()),
        "a Bitcoin key": pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
        "a P-192 key": pem(ec.generate_private_key(ec.SECP192R1()).public_key()),
        "bytes": bytes(range(256)),
    }
    for name, text in unreadable.items():
        yield Attempt(f"{name} as a key", lambda text=text: PublicKey.from_pem(text))
        path = ground.folder / f"{name}.pem"
        path.write_bytes(text if name != "a private key" else text[:-40])
        yield Attempt(
            f"{name} as a private key",
            lambda path=path: PrivateKey.load(path),
            expected=frozenset({OPERATOR, Reason.MALFORMED}),
        )


def with_key(ground: Ground, raw: bytes, key: PrivateKey) -> bytes:
    """The good `model.sig` with a signature of another key."""
    hint = hashlib.sha256(key.public.pem.encode()).hexdigest()
    return rehint(with_raw(ground, raw), hint)


def pem(key: Any) -> bytes:
    """A public key as PEM."""
    found: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


_ANY = (Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.UNKNOWN_KEY, Reason.BUNDLE_MISMATCH)


def flipped(raw: bytes, position: int, flip: int) -> bytes:
    """`raw` with a byte changed."""
    mutant = bytearray(raw)
    mutant[position] ^= flip
    return bytes(mutant)


@hostile("signature_mutants", *_ANY, sample=400)
def signature_mutants(ground: Ground) -> Iterator[Attempt]:
    """Every byte of `model.sig` changed in three ways; every tenth is fetched as well."""
    raw = ground.signature
    for position in range(len(raw)):
        for flip in FLIPS:
            mutant = flipped(raw, position, flip)
            yield Attempt(
                f"byte {position} ^ {flip:02x}",
                lambda m=mutant: ground.open(None, m),
                ground.digest,
            )
        if position % 10 == 0:
            yield Attempt(
                f"byte {position}: fetched",
                lambda m=mutant: ground.bring(None, m),
                ground.digest,
                ground.on_disk,
            )


@hostile("signature_cuts", *_ANY, sample=200)
def signature_cuts(ground: Ground) -> Iterator[Attempt]:
    """`model.sig` cut at every offset."""
    for length in range(len(ground.signature)):
        cut = ground.signature[:length]
        yield Attempt(f"{length} bytes", lambda cut=cut: ground.open(None, cut))
        if length % 50 == 0:
            yield Attempt(
                f"{length} bytes: fetched",
                lambda cut=cut: ground.bring(None, cut),
                trace=ground.on_disk,
            )


@hostile("manifest_mutants", *_ANY, sample=400)
def manifest_mutants(ground: Ground) -> Iterator[Attempt]:
    """Every byte of `bundle.json` changed in three ways under its good signature."""
    raw = ground.manifest
    for position in range(len(raw)):
        for flip in FLIPS:
            mutant = flipped(raw, position, flip)
            yield Attempt(f"byte {position} ^ {flip:02x}", lambda m=mutant: ground.open(m))
        if position % 10 == 0:
            yield Attempt(f"byte {position}: a directory", lambda m=mutant: ground.verify(m))
            yield Attempt(
                f"byte {position}: fetched",
                lambda m=mutant: ground.bring(m),
                trace=ground.on_disk,
            )


@hostile("manifest_cuts", *_ANY, sample=200)
def manifest_cuts(ground: Ground) -> Iterator[Attempt]:
    """`bundle.json` cut at every offset, signed anew each time."""
    for length in range(len(ground.manifest)):
        cut = ground.manifest[:length]
        yield Attempt(f"{length} bytes", lambda cut=cut: ground.open(cut, ground.sign(cut)))
