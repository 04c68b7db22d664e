"""A certificate authority for tests of TLS, and servers and devices that it vouches for.

Like `repository.py`, it needs nothing but the device's own dependencies.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Authority:
    """One authority; what it signs is good from yesterday until tomorrow."""

    subject: str = "an authority"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def pem(self) -> str:
        builder = self._builder(self.subject, self.key.public_key())
        return self._sign(builder.add_extension(x509.BasicConstraints(True, 0), True))

    def server(self, folder: Path, host: str) -> Path:
        """A key and a certificate for a host, in one PEM file."""
        return self._write(folder, host, ExtendedKeyUsageOID.SERVER_AUTH)

    def device(self, folder: Path, device: str) -> Path:
        """The same for a device; it stands for `127.0.0.1` as well, which no real one does."""
        return self._write(folder, device, ExtendedKeyUsageOID.CLIENT_AUTH, more="127.0.0.1")

    def sign(self, csr: x509.CertificateSigningRequest, *, days: int = 90) -> str:
        """A device's certificate for its request."""
        builder = self._builder("", csr.public_key(), days=days).subject_name(csr.subject)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._sign(builder.add_extension(usage, False))

    def _write(
        self, folder: Path, subject: str, usage: x509.ObjectIdentifier, *, more: str = ""
    ) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(more or subject)]), False)
        path = folder / f"{subject}-{key.public_key().public_numbers().x:x}"[-40:]
        path.write_text(self._sign(builder) + key.private_bytes(*KEY).decode())
        return path

    def _builder(self, subject: str, public: object, *, days: int = 1) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().issuer_name(name(self.subject))
        if subject:
            builder = builder.subject_name(name(subject))
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1))
        builder = builder.not_valid_after(now + timedelta(days=days))
        return builder.public_key(public)  # type: ignore[arg-type] # whatever is to be certified

    def _sign(self, builder: x509.CertificateBuilder) -> str:
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


def _san(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
