"""TLS as a device speaks it to its control room: whom it believes, and as whom it comes.

Files are read for every connection, so that a renewed certificate is used from the next one on.
An authority that is named is believed alone: no certificate that the world's authorities sign for
the control room's host name opens this door, unless `[http] ca_file` says so.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edgefleet_agent.identity import Identity
from edgefleet_contract.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Tls:
    """What one connection needs.

    authorities: PEM; None: whoever answers is talked to, for documents that prove themselves.
    certificate, key: shown to servers that ask who comes; PEM files.
    """

    authorities: str | None
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def of(cls, identity: Identity, *, ca_file: str = "") -> Tls:
        """What an enrolled device uses.

        Raises:
            OperatorError: a file cannot be read, or is not what it should be.
        """
        authorities = _read(identity.authority) + read_authorities(ca_file)
        made = cls(authorities, identity.certificate, identity.key)
        try:
            made.context()
        except OSError as error:  # ssl.SSLError is one
            raise OperatorError(f"the device's certificate cannot be used: {error}") from None
        return made

    @property
    def anonymous(self) -> Tls:
        """The same without a certificate: one past its date would end the handshake."""
        return Tls(self.authorities)

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or later; the server's certificate and host name are verified.

        Raises:
            OSError: a file cannot be read or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.authorities is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.authorities.strip():
            context.load_verify_locations(cadata=self.authorities)
        else:
            raise ssl.SSLError("there is no authority to verify the server by")
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


def key_fingerprint(certificate: bytes) -> str:
    """Of the key in a DER certificate: RFC 7469's SHA-256, `sha256//` and base64, as curl has it.

    Raises:
        ValueError: it is no certificate.
    """
    public = x509.load_der_x509_certificate(certificate).public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256//" + base64.b64encode(hashlib.sha256(der).digest()).decode()


UNVERIFIED: Final = Tls(None)
"""For public documents that are believed by a digest or signature. Never for a secret."""


def read_authorities(ca_file: str) -> str:
    """The PEM text of `[http] ca_file`; empty where none is named.

    Raises:
        OperatorError: it cannot be read, or holds no certificate.
    """
    if not ca_file:
        return ""
    text = _read(Path(ca_file))
    try:
        Tls(text).context()
    except OSError as error:
        raise OperatorError(
            f"{ca_file} is no certificate authority: {error}",
            hint="[http] ca_file in agent.toml names a PEM file",
        ) from None
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="ignore")  # bundles have names in comments
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
