"""The fleet's certificate authority: who is who on the broker.

One ECDSA P-256 authority signs the broker's certificate (by host name), the service's, a read-only
observer's, that of a requester, who may ask devices for predictions, and a client certificate per
device whose common name is the device. Nothing here touches a disk or a clock: PEM in, PEM out, the
time is an argument.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import PrivateKey, PublicKey

SERVICE: Final = "edgefleet-service"
OBSERVER: Final = "edgefleet-observer"
REQUESTER: Final = "edgefleet-requester"
RESERVED: Final = frozenset({SERVICE, OBSERVER, REQUESTER, "-"})
_SKEW: Final = timedelta(minutes=10)  # a board without a clock battery is a little behind
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was signed: PEM, serial number as hex, and its last second."""

    pem: str
    serial: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate request whose self-signature holds, so its sender has the key.

    `seal_key` is what it says that bundles may be sealed for; the same signature covers it.
    """

    key: PublicKey
    csr: x509.CertificateSigningRequest
    seal_key: str = ""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and the key that signs others with it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, fleet: str, *, now: datetime, days: int = 3650) -> Authority:
        """A new authority for a fleet."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"edgefleet CA of {fleet}")
        builder = _builder(name, name, key.public_key(), now=now, days=days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_usage(authority=True), True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Authority:
        """The authority in two PEM files.

        Raises:
            Malformed: they are not, or do not belong together.
        """
        try:
            loaded = serialization.load_pem_private_key(key, None)
            parsed = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError) as error:
            raise Malformed(f"the fleet's certificate authority cannot be read: {error}") from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise Malformed("the fleet's certificate authority has no ECDSA key")
        if loaded.public_key() != parsed.public_key():
            raise Malformed("the fleet's certificate authority: key and certificate do not match")
        return cls(parsed, loaded)

    @property
    def pem(self) -> str:
        """The authority's own certificate."""
        return _pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        """The authority's key, PKCS#8."""
        return PrivateKey.wrap(self.key).to_pem()

    def issue_client(self, name: str, key: PublicKey, *, now: datetime, days: int) -> Issued:
        """A client certificate whose common name is `name`."""
        public = serialization.load_pem_public_key(key.pem.encode())
        builder = _builder(_name(name), self.certificate.subject, public, now=now, days=days)
        return self._sign(builder.add_extension(x509.ExtendedKeyUsage([_CLIENT]), False))

    def issue_server(
        self, hosts: tuple[str, ...], key: PublicKey, *, now: datetime, days: int
    ) -> Issued:
        """A server certificate for host names and addresses."""
        public = serialization.load_pem_public_key(key.pem.encode())
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = _builder(_name(hosts[0]), self.certificate.subject, public, now=now, days=days)
        builder = builder.add_extension(names, False)
        return self._sign(builder.add_extension(x509.ExtendedKeyUsage([_SERVER]), False))

    def revocation_list(self, entries: Iterable[tuple[str, int]], *, now: datetime) -> str:
        """The PEM list of certificates that were taken back (RFC 5280): serial as hex, and when.

        It says that it holds for as long as the authority does: a broker refuses everybody once a
        list is past its date, and a new one is written on every change anyway.
        """
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now - _SKEW)
        builder = builder.next_update(max(self.certificate.not_valid_after_utc, now + _SKEW))
        for serial, at in entries:
            revoked = x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            builder = builder.add_revoked_certificate(
                revoked.revocation_date(datetime.fromtimestamp(at, UTC)).build()
            )
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        signed = builder.add_extension(identifier, False).sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def _sign(self, builder: x509.CertificateBuilder) -> Issued:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_usage(authority=False), True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
        )
        signed = builder.sign(self.key, hashes.SHA256())
        return Issued(_pem(signed), f"{signed.serial_number:x}", signed.not_valid_after_utc)


def open_request(pem: str) -> Request:
    """The certificate request in a PEM text, its self-signature checked.

    Raises:
        Malformed: not a request, a signature that does not hold, or a key that is not supported.
    """
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        holds = csr.is_signature_valid
        public = csr.public_key()
        seal_key = _seal_key(csr)
    except Exception as error:  # noqa: BLE001 - a stranger's DER: the library raises many kinds
        raise Malformed(f"certificate request: {type(error).__name__}: {error}") from None
    if not holds:
        raise Malformed("certificate request: its signature does not hold")
    return Request(PublicKey.wrap(public, what="certificate request"), csr, seal_key)


def hosts_of(pem: str) -> frozenset[str]:
    """The host names and addresses that a server certificate stands for."""
    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    texts = names.value.get_values_for_type(x509.DNSName)
    addresses = names.value.get_values_for_type(x509.IPAddress)
    return frozenset(texts) | frozenset(str(address) for address in addresses)


def expiry_of(pem: str) -> datetime:
    """The last second of a certificate."""
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc


def _seal_key(csr: x509.CertificateSigningRequest) -> str:
    try:
        found = csr.attributes.get_attribute_for_oid(AttributeOID.UNSTRUCTURED_NAME)
    except x509.AttributeNotFound:
        return ""
    return found.value.decode("ascii")


def _builder(
    subject: x509.Name, issuer: x509.Name, public: object, *, now: datetime, days: int
) -> x509.CertificateBuilder:
    key = PublicKey.wrap(public)
    loaded = serialization.load_pem_public_key(key.pem.encode())
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(loaded)  # type: ignore[arg-type] # wrap() let only two kinds by
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + timedelta(days=days))
    identifier = x509.SubjectKeyIdentifier.from_public_key(loaded)  # type: ignore[arg-type] # same
    return builder.add_extension(identifier, False)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
