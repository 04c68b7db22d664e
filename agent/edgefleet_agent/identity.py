"""Who this device is: its key, its certificate, whom it believes, and where its broker is.

identity/device.key       ECDSA P-256, PKCS#8, 0600; made here and never leaves; where systemd
                          gives a credential `device.key`, that is used and this does not exist
identity/seal.key         X25519, in the same way: opens the bundles that are sealed for this device
identity/device.crt       from the fleet's authority, common name = device name
identity/root.json        the TUF root that the claim pinned
identity/enrolment.json   fleet, device, broker; written last: its presence means enrolled
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefleet_agent.adapters.fs import FileSystem, write_durably
from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import OperatorError, PeerError
from edgefleet_contract.keys import PrivateKey

FOLDER: Final = "identity"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Where this device belongs."""

    fleet: str
    device: str
    mqtt_host: str
    mqtt_port: int
    metadata: str = ""

    @property
    def url(self) -> str:
        """The control room's base URL; empty where only the broker is known."""
        return self.metadata.removesuffix("/tuf")


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled device: where it belongs, whom it believes, the paths that TLS needs, and where
    the key is that opens sealed bundles (a device that enrolled before there were any has none)."""

    enrolment: Enrolment
    root: bytes
    key: Path
    certificate: Path
    authority: Path
    seal_key: Path = Path("seal.key")


def credential(name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file of a systemd credential (systemd.exec(5), LoadCredential=); None without one."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder) / name if folder else None
    return path if path is not None and path.exists() else None


def key_path(state: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the device's key is: given by systemd, or in the state folder. It is never copied."""
    return credential("device.key", environ) or state / FOLDER / "device.key"


def device_key(state: Path, fs: FileSystem | None = None) -> PrivateKey:
    """The device's key: given by systemd, or made on first use.

    Raises:
        OperatorError: it cannot be read or written.
    """
    fs, folder = fs or FileSystem(), state / FOLDER
    path = key_path(state)
    try:
        fs.mkdir(folder)
        if not path.exists():
            write_durably(fs, path, PrivateKey.generate_p256().to_pem())
    except OSError as error:
        raise OperatorError(f"cannot write {folder}: {error.strerror}") from None
    return PrivateKey.load(path)


def seal_key_path(state: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the key for sealed bundles is: given by systemd, or in the state folder."""
    return credential("seal.key", environ) or state / FOLDER / "seal.key"


def seal_key(state: Path) -> X25519PrivateKey:
    """The key that opens what is sealed for this device: given by systemd, or made on first use.

    Raises:
        OperatorError: it cannot be read or written, or is not an X25519 key.
    """
    path = seal_key_path(state)
    if not path.exists():
        pem = X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            FileSystem().mkdir(state / FOLDER)
            write_durably(FileSystem(), path, pem)
        except OSError as error:
            raise OperatorError(f"cannot write {path}: {error.strerror}") from None
    return load_seal_key(path)


def load_seal_key(path: Path) -> X25519PrivateKey:
    """The key in a PKCS#8 PEM file.

    Raises:
        OperatorError: no such file, not readable, or not an X25519 key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise OperatorError(f"cannot read the key {path}: {error.strerror}") from None
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise OperatorError(f"{path} is not a usable private key: {error}") from None
    if not isinstance(key, X25519PrivateKey):
        raise OperatorError(f"{path} holds another key than an X25519 one")
    return key


def is_enrolled(state: Path) -> bool:
    """Whether an enrolment was finished in this state folder."""
    return (state / FOLDER / "enrolment.json").exists()


def save(
    state: Path,
    enrolment: Enrolment,
    *,
    certificate: str,
    root: bytes,
    ca: str,
    fs: FileSystem | None = None,
) -> None:
    """Make an enrolment durable; the file that says so comes last.

    Raises:
        OperatorError: the folder cannot be written.
    """
    fs, folder = fs or FileSystem(), state / FOLDER
    document = json.dumps(codec.encode(enrolment), indent=2) + "\n"
    try:
        for name, data in (
            ("root.json", root),
            ("ca.crt", ca.encode()),
            ("device.crt", certificate.encode()),
            ("enrolment.json", document.encode()),
        ):
            write_durably(fs, folder / name, data)
    except OSError as error:
        raise OperatorError(f"cannot write {folder}: {error.strerror}") from None


def load(state: Path) -> Identity:
    """The identity of an enrolled device.

    Raises:
        OperatorError: not enrolled, or a file of it is missing or spoilt.
    """
    folder = state / FOLDER
    if not is_enrolled(state):
        raise OperatorError(
            f"this device is not enrolled: there is no {folder / 'enrolment.json'}",
            hint="edge-agent enrol --fleet URL --claim-file FILE",
        )
    try:
        raw = (folder / "enrolment.json").read_bytes()
        value = canonical.parse_message(raw, what="enrolment.json")
        enrolment = codec.decode(Enrolment, value, what="enrolment.json")
        root = (folder / "root.json").read_bytes()
    except (OSError, PeerError) as error:
        raise OperatorError(
            f"the enrolment in {folder} cannot be used: {error}",
            hint=f"remove {folder / 'enrolment.json'} and enrol again",
        ) from None
    return Identity(
        enrolment,
        root,
        key_path(state),
        folder / "device.crt",
        folder / "ca.crt",
        seal_key_path(state),
    )
