"""Enrolment: a claim, carried here by a person, becomes a certificate and a root of trust.

The keys are made on the device; only a certificate request leaves it. The fleet is not believed
because of its address: its TUF root must hash to the digest in the claim, the metadata must verify
by that root, and the certificate must be for our key and name and from the authority they name.

The order of steps keeps the claim's secret: metadata prove themselves, so they are fetched from
whoever answers; the authority that they name then verifies the server, over https, before anything
is told to it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AttributeOID, NameOID

from edgefleet_agent import identity
from edgefleet_agent.adapters.http_session import FOREIGN, HttpSession
from edgefleet_agent.adapters.tls import UNVERIFIED, Tls
from edgefleet_agent.adapters.tuf_client import HttpMetadata, TufClient
from edgefleet_agent.approval import Answer, Wait, await_answer, refuse_to_wait
from edgefleet_agent.identity import Enrolment
from edgefleet_contract import canonical, messages
from edgefleet_contract.bundle import is_name, sha256
from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.enrolment import EnrolPending, EnrolRequest, EnrolResponse
from edgefleet_contract.errors import Malformed, OperatorError, TransientError, Unverified
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_contract.sealed import render_seal_key
from edgefleet_contract.trust import Claim, Trust, TrustFloors

TRUST_FOLDER: Final = "trust"
TIMEOUT_S: Final = (5.0, 20.0)
PATIENCE_S: Final = 30.0
MAX_BYTES: Final = 256 * 1024
BUSY: Final = (429, 502, 503, 504)
WAIT: Final = 202


def enrol(
    state: Path,
    *,
    url: str,
    claim: Claim,
    device: str,
    capabilities: Capabilities,
    authorities: str = "",
    wait: Wait = refuse_to_wait,
) -> Enrolment:
    """Enrol this device under a name, and make it durable. A broken try can be repeated.

    `authorities` (PEM) may vouch for the control room's host name as well as the fleet's own may.
    Where an operator must approve first, `wait` is called between two tries.

    Raises:
        OperatorError: enrolled already, a bad name, or the fleet or its operator refused.
        TransientError: the fleet cannot be reached, or there is to be no waiting.
        Unverified: what answered is not the fleet that the claim names.
    """
    if identity.is_enrolled(state):
        raise OperatorError(
            f"this device is enrolled already (state in {state})",
            hint=f"to enrol it anew, remove {state / identity.FOLDER / 'enrolment.json'}",
        )
    if not is_name(device):
        raise OperatorError(
            f"{device!r} cannot be a device's name",
            hint="use lower-case letters, digits, '.', '_' and '-'; give it with --device",
        )
    key = identity.device_key(state)
    root, trust = _introduce(state, url, claim)
    ca = trust.policy.ca
    seal_key = render_seal_key(identity.seal_key(state).public_key())
    csr = certificate_request(key, device, seal_key=seal_key)
    request = EnrolRequest(claim.secret, device, csr, capabilities, seal_key)
    tls = Tls(ca + authorities)
    answer = await_answer(lambda: _request(url, request, tls), wait, key_id=key.public.id)
    check_certificate(answer.certificate, ca, key.public, device)
    enrolment = Enrolment(claim.fleet, device, answer.mqtt_host, answer.mqtt_port, answer.metadata)
    identity.save(state, enrolment, certificate=answer.certificate, root=root, ca=ca)
    return enrolment


def _introduce(state: Path, url: str, claim: Claim) -> tuple[bytes, Trust]:
    """The root that a claim names, and what it vouches for: from whoever has it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OperatorError(f"{url!r} is not a URL", hint="e.g. https://fleet.local:8080")
    source = HttpMetadata(f"{url.rstrip('/')}/tuf", UNVERIFIED)
    try:
        root = b"".join(source.read("root.json", MAX_BYTES))
    except KeyError:
        raise OperatorError(
            f"{url} has no root to show: it is no control room, or nobody is trusted there yet"
        ) from None
    except TransientError as error:
        raise _unreachable(url, error.message) from None
    if sha256(root) != claim.root_sha256:
        raise Unverified(
            "the fleet's root is not the one that the claim names",
            hint="the fleet's keys changed since the claim was made, or this is not that fleet",
        )
    client = TufClient(state / TRUST_FOLDER, root)
    trust = client.refresh((source,), now=int(time.time()), floors=TrustFloors())
    if trust.policy.fleet != claim.fleet:
        raise Unverified(f"the metadata are of fleet {trust.policy.fleet!r}, not {claim.fleet!r}")
    return root, trust


def certificate_request(key: PrivateKey, device: str, *, seal_key: str = "") -> str:
    """A PEM certificate signing request for the device's name; it vouches for the seal key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if seal_key:
        said = seal_key.encode("ascii")
        request = request.add_attribute(AttributeOID.UNSTRUCTURED_NAME, said)
    signed = request.sign(key.raw, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _request(url: str, request: EnrolRequest, tls: Tls) -> Answer:
    status, raw = ask(url, "/api/v1/enrol", messages.render(request), tls)
    if status == WAIT:
        return messages.parse(EnrolPending, raw, device=request.device)
    return messages.parse(EnrolResponse, raw, device=request.device)


def ask(url: str, path: str, body: bytes, tls: Tls) -> tuple[int, bytes]:
    """What the control room at a URL answers to a message: 200 or 202, and the body.

    Raises:
        OperatorError: it refuses.
        TransientError: it cannot be reached, or is busy.
        Unverified: over https, what answers is not the control room.
    """
    session = HttpSession(timeout=TIMEOUT_S, patience_s=PATIENCE_S, tls=tls)
    raw = bytearray()
    try:
        # No redirects are followed: the message is for this address, not for one that it names.
        with session.post(f"{url.rstrip('/')}{path}", body) as answer:
            for piece in answer.pieces(16 * 1024):
                raw += piece
                if len(raw) > MAX_BYTES:
                    raise TransientError(f"{url} answers with more than {MAX_BYTES} bytes")
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise _unreachable(url, str(error)) from None
        why = str(error).partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        raise Unverified(
            f"what answers at {url} is not the fleet's control room: {why}",
            hint="nothing was told to it; a certificate from elsewhere: [http] ca_file in"
            " agent.toml; another host name: fleet serve --public-host",
        ) from None
    except FOREIGN as error:
        raise _unreachable(url, str(error)) from None
    if answer.status in BUSY:
        raise TransientError(f"the fleet is busy: {_problem(answer.status, bytes(raw))}")
    if answer.status not in (200, WAIT):
        raise OperatorError(f"the fleet refused: {_problem(answer.status, bytes(raw))}")
    return answer.status, bytes(raw)


def _unreachable(url: str, why: str) -> TransientError:
    return TransientError(
        f"cannot reach the fleet at {url}: {why[:200]}",
        hint="is `fleet serve` running there, and the port open? https:// where it runs with TLS",
    )


def _problem(status: int, body: bytes) -> str:
    """What a problem+json body says (RFC 9457), or the status."""
    try:
        said = canonical.parse_message(body, what="problem", max_bytes=MAX_BYTES)
    except Malformed:
        return f"status {status}"
    detail = said.get("detail") or said.get("title") if isinstance(said, dict) else None
    return str(detail or f"status {status}")[:500]


def check_certificate(pem: str, ca_pem: str, mine: PublicKey, device: str) -> None:
    """Hold a certificate against the authority, the device's key and its name.

    Raises:
        Unverified: it is another's, or not from the authority.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        authority = x509.load_pem_x509_certificate(ca_pem.encode())
        certificate.verify_directly_issued_by(authority)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = PublicKey.wrap(certificate.public_key(), what="certificate")
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Unverified(f"the fleet's certificate for {device} is not good: {error}") from None
    if key != mine or [str(name.value) for name in names] != [device]:
        raise Unverified(f"the fleet's certificate is for another device than {device}")
