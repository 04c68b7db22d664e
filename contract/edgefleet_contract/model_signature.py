"""`model.sig`: OpenSSF Model Signing v1.0, method `files`, made and checked with `cryptography`.

Format: https://github.com/sigstore/model-transparency (predicate `model_signing/signature/v1.0`):
an in-toto statement in a DSSE envelope in a Sigstore bundle v0.3. A stranger checks a bundle with
that project's own command line:

    model_signing verify key --public_key publisher.pub --signature d-1/model.sig d-1

The resources of the statement must be exactly the files of `bundle.json` and `bundle.json` itself,
with the same digests; what the statement says should be ignored is never believed. An ECDSA
signature can be rewritten into another valid one, so `model.sig` is never an identity.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.bundle import MANIFEST, SIGNATURE, Digest, Manifest, parse_manifest, sha256
from edgefleet_contract.envelope import Envelope, Signature, pae, unbase64
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import KeyId, KeyRing, PublicKey, Signer
from edgefleet_contract.reasons import Reason

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 12


@dataclass(frozen=True, slots=True)
class _KeyHint:
    hint: str


@dataclass(frozen=True, slots=True)
class _Material:
    publicKey: _KeyHint  # noqa: N815 - the field's name in the Sigstore bundle format
    tlogEntries: tuple[str, ...] = ()  # noqa: N815 - the same


@dataclass(frozen=True, slots=True)
class _SigstoreBundle:
    mediaType: str  # noqa: N815 - the field's name in the Sigstore bundle format
    verificationMaterial: _Material  # noqa: N815 - the same
    dsseEnvelope: Envelope  # noqa: N815 - the same


@dataclass(frozen=True, slots=True)
class _Resource:
    name: str
    digest: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class _Serialization:
    method: str
    hash_type: str
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Predicate:
    serialization: _Serialization
    resources: tuple[_Resource, ...]


@dataclass(frozen=True, slots=True)
class _Subject:
    name: str
    digest: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Statement:
    _type: str
    subject: tuple[_Subject, ...]
    predicateType: str  # noqa: N815 - the field's name in the in-toto specification
    predicate: _Predicate


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A manifest that a trusted publisher signed; made by `open_bundle` alone.

    `digest` is the SHA-256 of `bundle.json`: the identity of the bundle.
    """

    manifest: Manifest
    digest: Digest
    signer: KeyId


def sign_bundle(manifest_bytes: bytes, key: Signer) -> bytes:
    """The bytes of `model.sig` for a `bundle.json`.

    Raises:
        Malformed: the manifest is not valid, or the key is not ECDSA (the format knows no other).
    """
    if not key.public.algorithm.startswith("ECDSA"):
        raise Malformed(f"model.sig needs an ECDSA key, this one is {key.public.algorithm}")
    manifest = parse_manifest(manifest_bytes)
    resources = _resources(manifest, manifest_bytes)
    statement = _Statement(
        _type=STATEMENT_TYPE,
        subject=(_Subject(manifest.name, {"sha256": _root_digest(resources)}),),
        predicateType=PREDICATE_TYPE,
        predicate=_Predicate(
            _Serialization("files", "sha256", ignore_paths=(SIGNATURE,)), resources
        ),
    )
    payload = json.dumps(codec.encode(statement), indent=2).encode("utf-8")
    signature = base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode("ascii")
    document = _SigstoreBundle(
        MEDIA_TYPE,
        _Material(_KeyHint(_hint(key.public))),
        Envelope(base64.b64encode(payload).decode("ascii"), PAYLOAD_TYPE, (Signature(signature),)),
    )
    return json.dumps(codec.encode(document), separators=(",", ":")).encode("utf-8")


def open_bundle(manifest_bytes: bytes, signature_bytes: bytes, ring: KeyRing) -> VerifiedBundle:
    """The manifest, if a publisher of `ring` signed exactly it and exactly its files.

    Raises:
        Malformed: `bundle.json` or `model.sig` is not what the specification describes.
        Unverified: UNKNOWN_KEY, BAD_SIGNATURE, or BUNDLE_MISMATCH where the signature is good but
            stands for other files.
    """
    payload, signer = _open_signature(signature_bytes, ring)
    value = canonical.parse_message(payload, what=SIGNATURE, max_bytes=MAX_BYTES)
    statement = codec.decode(_Statement, value, what=SIGNATURE, unknown=True)
    resources = _check_statement(statement)
    manifest = parse_manifest(manifest_bytes)
    if statement.subject[0].name != manifest.name:
        raise _mismatch(f"it signs {statement.subject[0].name[:80]!r}, not {manifest.name!r}")
    if resources != _resources(manifest, manifest_bytes):
        raise _mismatch("the files that it signs are not the files of bundle.json")
    return VerifiedBundle(manifest, sha256(manifest_bytes), signer)


def _open_signature(raw: bytes, ring: KeyRing) -> tuple[bytes, KeyId]:
    if not len(ring):
        raise Unverified(f"{SIGNATURE}: no publisher key is trusted", reason=Reason.UNKNOWN_KEY)
    value = canonical.parse_message(raw, what=SIGNATURE, max_bytes=MAX_BYTES)
    document = codec.decode(_SigstoreBundle, value, what=SIGNATURE)
    if document.mediaType != MEDIA_TYPE:
        raise Malformed(f"{SIGNATURE}: media type {document.mediaType[:80]!r}")
    envelope = document.dsseEnvelope
    if envelope.payloadType != PAYLOAD_TYPE:
        raise Malformed(f"{SIGNATURE}: payload type {envelope.payloadType[:80]!r}")
    if len(envelope.signatures) != 1:
        raise Malformed(f"{SIGNATURE}: {len(envelope.signatures)} signatures, exactly 1 is read")
    hint = document.verificationMaterial.publicKey.hint
    key = next((key for key in ring if _hint(key) == hint), None)
    if key is None:
        raise Unverified(
            f"{SIGNATURE}: signed by unknown key {ascii(hint[:8])[1:-1]}", reason=Reason.UNKNOWN_KEY
        )
    if not key.algorithm.startswith("ECDSA"):
        raise Malformed(f"{SIGNATURE}: by an {key.algorithm} key; the format knows ECDSA only")
    payload = unbase64(envelope.payload, what=SIGNATURE)
    signature = unbase64(envelope.signatures[0].sig, what=SIGNATURE)
    if not key.is_signature(signature, pae(PAYLOAD_TYPE, payload)):
        raise Unverified(f"{SIGNATURE}: the signature by key {hint[:8]} does not match")
    return payload, key.id


def _check_statement(statement: _Statement) -> tuple[_Resource, ...]:
    if statement._type != STATEMENT_TYPE or statement.predicateType != PREDICATE_TYPE:
        raise Malformed(f"{SIGNATURE}: predicate type {statement.predicateType[:80]!r}")
    serialization = statement.predicate.serialization
    if serialization.method != "files" or serialization.hash_type != "sha256":
        raise Malformed(f"{SIGNATURE}: serialization {serialization.method[:40]!r}")
    resources = statement.predicate.resources
    if len(statement.subject) != 1:
        raise Malformed(f"{SIGNATURE}: {len(statement.subject)} subjects, exactly 1 is read")
    if statement.subject[0].digest != {"sha256": _root_digest(resources)}:
        raise _mismatch("the root digest is not that of its resources")
    return resources


def _resources(manifest: Manifest, manifest_bytes: bytes) -> tuple[_Resource, ...]:
    digests: dict[str, str] = {file.path: file.sha256 for file in manifest.files}
    digests[MANIFEST] = sha256(manifest_bytes)
    return tuple(_Resource(path, digests[path], "sha256") for path in sorted(digests))


def _root_digest(resources: tuple[_Resource, ...]) -> str:
    root = hashlib.sha256()
    for resource in resources:
        try:
            root.update(bytes.fromhex(resource.digest))
        except ValueError:
            raise Malformed(f"{SIGNATURE}: a digest is not hex") from None
    return root.hexdigest()


def _hint(key: PublicKey) -> str:
    return hashlib.sha256(key.pem.encode("ascii")).hexdigest()


def _mismatch(found: str) -> Unverified:
    return Unverified(f"{SIGNATURE}: {found}", reason=Reason.BUNDLE_MISMATCH)
