"""Enrolment: a claim, carried here by a person, becomes a certificate and a root of trust.

The keys are made on the device; only a certificate request leaves it. The fleet is not believed
because of its address: its TUF root must hash to the digest in the claim, the metadata must verify
by that root, and the certificate must be for our key and name and from the authority they name.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AttributeOID, NameOID
from urllib3.exceptions import HTTPError

from edgefleet_agent import identity
from edgefleet_agent.adapters.tuf_client import HttpMetadata, TufClient
from edgefleet_agent.identity import Enrolment
from edgefleet_contract import canonical, messages
from edgefleet_contract.bundle import is_name, sha256
from edgefleet_contract.errors import Malformed, OperatorError, TransientError, Unverified
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_contract.messages import Capabilities, EnrolRequest, EnrolResponse
from edgefleet_contract.sealed import render_seal_key
from edgefleet_contract.trust import Claim, TrustFloors

TRUST_FOLDER: Final = "trust"
TIMEOUT_S: Final = (5.0, 20.0)
MAX_BYTES: Final = 256 * 1024


def enrol(
    state: Path, *, url: str, claim: Claim, device: str, capabilities: Capabilities
) -> Enrolment:
    """Enrol this device under a name, and make it durable. A broken try can be repeated.

    Raises:
        OperatorError: enrolled already, a bad name, or the fleet refused the claim.
        TransientError: the fleet cannot be reached.
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
    seal_key = render_seal_key(identity.seal_key(state).public_key())
    csr = certificate_request(key, device, seal_key=seal_key)
    request = EnrolRequest(claim.secret, device, csr, capabilities, seal_key)
    answer = _post(url, request)
    root = answer.root.encode("utf-8")
    if sha256(root) != claim.root_sha256:
        raise Unverified(
            "the fleet's root is not the one that the claim names",
            hint="the fleet's keys changed since the claim was made, or this is not that fleet",
        )
    client = TufClient(state / TRUST_FOLDER, root)
    source = HttpMetadata(answer.metadata)
    trust = client.refresh((source,), now=int(time.time()), floors=TrustFloors())
    if trust.policy.fleet != claim.fleet:
        raise Unverified(f"the metadata are of fleet {trust.policy.fleet!r}, not {claim.fleet!r}")
    ca = trust.policy.ca
    check_certificate(answer.certificate, ca, key.public, device)
    enrolment = Enrolment(claim.fleet, device, answer.mqtt_host, answer.mqtt_port, answer.metadata)
    identity.save(state, enrolment, certificate=answer.certificate, root=root, ca=ca)
    return enrolment


def certificate_request(key: PrivateKey, device: str, *, seal_key: str = "") -> str:
    """A PEM certificate signing request for the device's name; it vouches for the seal key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if seal_key:
        said = seal_key.encode("ascii")
        request = request.add_attribute(AttributeOID.UNSTRUCTURED_NAME, said)
    signed = request.sign(key.raw, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _post(url: str, request: EnrolRequest) -> EnrolResponse:
    endpoint = f"{url.rstrip('/')}/api/v1/enrol"
    session = requests.Session()
    session.trust_env = False
    try:
        response = session.post(
            endpoint,
            data=messages.render(request),
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT_S,
            allow_redirects=False,  # the claim is for this address, not for one that it names
            stream=True,
        )
        body = response.raw.read(MAX_BYTES + 1, decode_content=True)
    except requests.exceptions.InvalidURL as error:
        raise OperatorError(f"{url!r} is not a URL: {error}") from None
    except requests.exceptions.MissingSchema:
        raise OperatorError(f"{url!r} is not a URL", hint="e.g. http://fleet.local:8080") from None
    except (requests.RequestException, HTTPError) as error:
        raise TransientError(
            f"cannot reach the fleet at {url}: {str(error)[:200]}",
            hint="is `fleet serve` running there, and the port open?",
        ) from None
    if response.status_code != 200:
        raise OperatorError(f"the fleet refused: {_problem(response.status_code, body)}")
    return messages.parse(EnrolResponse, body, device=request.device)


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
