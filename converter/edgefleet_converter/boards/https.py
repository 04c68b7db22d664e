"""A board whose agent runs: asked by its network door, with a token and a publisher's signature.

The board is known by the fingerprint of its key, by a certificate that a file vouches for, or by
one of this system's authorities, before the token is said. Spec: [api-12].
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import Malformed, OperatorError, TransientError, Unverified
from edgefleet_contract.keys import Signer
from edgefleet_contract.measuring import (
    MAX_REPORT_BYTES,
    Invitation,
    MeasureJob,
    MeasureReport,
    parse_invitation,
    parse_report,
    sign_job,
)
from edgefleet_contract.measuring_archive import write_archive
from edgefleet_converter.boards.places import Https

PATH: Final = "/edgefleet/measure"
_CONNECT_S: Final = 30.0
_SPARE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a board's door: the `token` of its operator, the `key` of a publisher that it
    trusts. `ca` (PEM) vouches for boards that have no fingerprint."""

    token: str = field(default="", repr=False)
    key: Signer | None = None
    ca: Path | None = None


def measure_by_https(
    place: Https,
    make_job: Callable[[str], MeasureJob],
    places: Mapping[Digest, Path],
    access: Access,
) -> MeasureReport:
    """What a board says of a job.

    Args:
        place: the board.
        make_job: what to measure, with the challenge of the board.
        places: its files.
        access: who asks.

    Raises:
        OperatorError: the board refuses, or there is no token or key to ask with.
        Unverified: who answers is not the board.
        TransientError: it cannot be reached, or has no time now.
    """
    what = f"{place.host}:{place.port}"
    if not access.token or access.key is None:
        raise OperatorError(
            f"{what}: a board's network door takes a token and a publisher's signature",
            hint="--token-file FILE (edge-agent token add NAME --measure) and --key PATH",
        )
    invited = _invited(place, access, what)
    job = make_job(invited.challenge)
    with tempfile.TemporaryFile() as tar:
        write_archive(job, places, tar, signed=sign_job(job, access.key))
        size = tar.tell()
        if size > invited.max_mib * 1024 * 1024:
            raise OperatorError(
                f"{what} takes jobs of {invited.max_mib} MiB, this one has {size / 2**20:.1f}",
                hint="[serving.measure] max_mib in its agent.toml, or fewer models",
            )
        tar.seek(0)
        raw = _ask(place, access, what, "POST", tar, size, invited.max_s + _SPARE_S)
    try:
        return parse_report(raw, what=f"the report of {what}")
    except Malformed as error:
        raise OperatorError(error.message) from None


def _invited(place: Https, access: Access, what: str) -> Invitation:
    raw = _ask(place, access, what, "GET", None, 0, _CONNECT_S)
    try:
        return parse_invitation(raw, what=what)
    except Malformed as error:
        raise OperatorError(error.message, hint=f"is an edge-agent at {what}?") from None


def _ask(
    place: Https,
    access: Access,
    what: str,
    method: str,
    body: object,
    size: int,
    within_s: float,
) -> bytes:
    connection = http.client.HTTPSConnection(
        place.host, place.port, timeout=_CONNECT_S, context=_context(place, access)
    )
    headers = {"Authorization": f"Bearer {access.token}"}
    if size:
        headers |= {"Content-Type": "application/x-tar", "Content-Length": str(size)}
    try:
        connection.connect()
        sock = cast("ssl.SSLSocket", connection.sock)
        _check(place, sock.getpeercert(binary_form=True), what)
        sock.settimeout(within_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # where it is refused before all of it was read, the answer says why
            connection.request(method, PATH, cast("bytes | None", body), headers)
        response = connection.getresponse()
        raw = response.read(MAX_REPORT_BYTES + 1)
    except ssl.SSLCertVerificationError as error:
        raise Unverified(
            f"{what} is not known to be the board: {error.verify_message}",
            hint="add the fingerprint that `edge-agent certificate` shows there: https://…#sha256//…",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{what}: {error}") from None
    finally:
        connection.close()
    if response.status == http.HTTPStatus.OK:
        return raw
    raise _refused(what, response.status, raw)


def _refused(what: str, status: int, raw: bytes) -> OperatorError | TransientError:
    try:
        error = json.loads(raw)["error"]
    except (ValueError, KeyError, TypeError):
        error = "no reason was given"
    text = f"{what} refuses: {str(error)[:300]} (HTTP {status})"
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        return TransientError(text)
    return OperatorError(text)


def _context(place: Https, access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca)
    except OSError as error:
        raise OperatorError(f"cannot use {access.ca}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if place.fingerprint:  # the key itself is known: nobody has to vouch for it
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _check(place: Https, certificate: bytes | None, what: str) -> None:
    if not place.fingerprint:
        return
    key = x509.load_der_x509_certificate(certificate or b"").public_key()
    raw = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = "sha256//" + base64.b64encode(hashlib.sha256(raw).digest()).decode()
    if found != place.fingerprint:
        raise Unverified(f"{what} has the key {found}, expected {place.fingerprint}")
