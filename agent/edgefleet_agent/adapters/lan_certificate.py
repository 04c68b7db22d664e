"""The certificate that the agent makes for its network port, where nobody gives it one.

Self-signed, ECDSA P-256, ten years, for the host's name, its addresses and the names of
`[serving.lan]`. Its key is made once and kept when the certificate is made anew, so what clients
pin is the key: `fingerprint` is that of RFC 7469, as curl's `--pinnedpubkey` takes it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgefleet_agent.adapters.fs import FileSystem, write_durably
from edgefleet_agent.adapters.tls import key_fingerprint
from edgefleet_agent.serving.lan import LanConfig
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey

_LIFE: Final = timedelta(days=3650)
_RENEW: Final = timedelta(days=365)
_LOCAL: Final = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
_BUILT: Final = datetime(2026, 1, 1, tzinfo=UTC)  # a clock before it is a clock that was not set


@dataclass(frozen=True, slots=True)
class Shown:
    """What clients see. `names` are host names and addresses."""

    fingerprint: str
    names: tuple[str, ...]
    ends: datetime
    is_for_key: str  # of the public key, to hold it against a private one


def ensure_certificate(lan: LanConfig, now: datetime) -> bool:
    """Make what is missing, past its time or for another name; whether anything was made.

    Raises:
        OperatorError: the folder cannot be written, or a name is none.
    """
    if not lan.is_own:
        return False
    fs, names = FileSystem(), (*host_names(), *lan.names)
    try:
        fs.mkdir(Path(lan.folder))
        if not lan.key_file.exists():
            write_durably(fs, lan.key_file, PrivateKey.generate_p256().to_pem())
        key = PrivateKey.load(lan.key_file)
        if _is_good(lan.certificate_file, key, names, now):
            return False
        pem = make_certificate(key, (*names, *addresses()), now)
        write_durably(fs, lan.certificate_file, pem)
    except OSError as error:
        raise OperatorError(f"cannot write {lan.folder}: {error.strerror}") from None
    return True


def read_certificate(path: Path) -> Shown:
    """What a PEM file shows.

    Raises:
        OperatorError: it cannot be read, or is no certificate.
    """
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except OSError as error:
        raise OperatorError(
            f"cannot read the certificate {path}: {error.strerror}",
            hint="the agent makes it when it starts with [serving.lan] in agent.toml",
        ) from None
    except (ValueError, x509.ExtensionNotFound) as error:
        raise OperatorError(f"{path} is no certificate of a server: {error}") from None
    der = found.public_bytes(serialization.Encoding.DER)
    names = tuple(str(name.value) for name in alternative.value)
    pem = found.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Shown(key_fingerprint(der), names, found.not_valid_after_utc, pem.decode())


def make_certificate(key: PrivateKey, names: Iterable[str], now: datetime) -> bytes:
    """A self-signed certificate, PEM.

    Raises:
        OperatorError: a name is neither a host name nor an address.
    """
    names = tuple(dict.fromkeys(names))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    public = key.raw.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now - timedelta(days=1), _BUILT))
        .not_valid_after(max(now, _BUILT) + _LIFE)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(identifier, False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False
        )
        .sign(key.raw, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def host_names() -> tuple[str, ...]:
    """This host's name, alone and as multicast DNS has it, and `localhost`."""
    name = socket.gethostname().lower()
    if not name.isascii() or not name:
        return ("localhost",)
    short = name.partition(".")[0]
    return tuple(dict.fromkeys((name, short, f"{short}.local", "localhost")))


def addresses() -> tuple[str, ...]:
    """This host's addresses now, but for those that mean nothing on another interface.

    From /proc: asking the kernel needs AF_NETLINK, which the unit does not give (proc(5)).
    """
    found = [
        *_LOCAL.findall(_read(Path("/proc/net/fib_trie"))),
        *(line.split()[0] for line in _read(Path("/proc/net/if_inet6")).splitlines()),
    ]
    parsed = [
        ipaddress.ip_address(text if "." in text else bytes.fromhex(text))
        for text in dict.fromkeys(found)
    ]
    return tuple(str(address) for address in parsed if not address.is_link_local)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError:  # a kernel without IPv6 has no such file
        return ""


def _is_good(path: Path, key: PrivateKey, names: Iterable[str], now: datetime) -> bool:
    """Whether a certificate may go on being shown. Addresses come and go: they are no reason."""
    try:
        shown = read_certificate(path)
    except OperatorError:
        return False
    return (
        shown.is_for_key.strip() == key.public.pem.strip()
        and now < shown.ends - _RENEW
        and set(names) <= set(shown.names)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise OperatorError(
            f"serving.lan.names: {name!r} is neither a host name nor an address"
        ) from None
