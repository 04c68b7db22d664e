"""The data directory: where everything of a control room lies, and how it is first made.

    fleet.db  blobs/  uploads/  deltas/  keys/ (0700)  broker/  operator.token (0600)  lock

Rules: a secret is written with mode 0600 into a folder of mode 0700, whole or not at all (write,
fsync, rename, fsync of the folder); keys are made once and never replaced; certificates of the
servers and the service are made again when they are about to expire or a host name was added. One
process at a time: `locked()` holds a lock for as long as the service runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey, PublicKey
from edgefleet_fleet.authority import OBSERVER, REQUESTER, SERVICE, Authority, expiry_of, hosts_of

_LIFE_DAYS: Final = 820
_RENEW: Final = timedelta(days=60)
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class DataDir:
    """The paths of one data directory."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file, unless another data base is configured."""
        return self.root / "fleet.db"

    @property
    def blobs(self) -> Path:
        """The shelf: content-addressed files."""
        return self.root / "blobs"

    @property
    def uploads(self) -> Path:
        """Blobs that are on their way to the shelf."""
        return self.root / "uploads"

    @property
    def deltas(self) -> Path:
        """What leads from one blob to another; made again where it is missing."""
        return self.root / "deltas"

    @property
    def keys(self) -> Path:
        """Private keys and certificates."""
        return self.root / "keys"

    @property
    def broker(self) -> Path:
        """The broker's generated configuration and its persistence."""
        return self.root / "broker"

    @property
    def revocations(self) -> Path:
        """The list of the certificates that were taken back, for the broker."""
        return self.broker / "revoked.pem"

    @property
    def token(self) -> Path:
        """The operator's bearer token."""
        return self.root / "operator.token"

    @property
    def config(self) -> Path:
        """The optional configuration file."""
        return self.root / "fleet.toml"

    def prepare(self, fleet: str, *, public_host: str) -> Authority:
        """Make what is missing, renew what is due, and give the certificate authority.

        Raises:
            OperatorError: the directory cannot be written, or holds files that are not ours.
        """
        try:
            return self._prepare(fleet, public_host)
        except OSError as error:
            where = error.filename or self.root
            raise OperatorError(f"cannot prepare {where}: {error.strerror}") from None

    def _prepare(self, fleet: str, public_host: str) -> Authority:
        for folder, mode in ((self.root, 0o711), (self.blobs, 0o755), (self.broker, 0o700)):
            folder.mkdir(parents=True, exist_ok=True, mode=mode)
        self.keys.mkdir(exist_ok=True, mode=0o700)
        self.keys.chmod(0o700)
        if not self.token.exists():
            write_file(self.token, (secrets.token_urlsafe(32) + "\n").encode(), mode=0o600)
        for name in ("director.pem", "repository.pem"):
            if not (self.keys / name).exists():
                write_file(self.keys / name, PrivateKey.generate_ed25519().to_pem(), mode=0o600)
        authority = self._authority(fleet)
        for name in (SERVICE, OBSERVER, REQUESTER):
            self._client(authority, name, name.removeprefix("edgefleet-"))
        hosts = (*_LOCAL, socket.gethostname(), public_host)
        self._server(authority, "broker", hosts)
        return authority

    def prepare_https(self, authority: Authority, *hosts: str) -> tuple[Path, Path]:
        """A certificate for the HTTP port under these host names (and the local ones), and its key.

        Raises:
            OperatorError: the directory cannot be written.
        """
        try:
            self._server(authority, "https", (*_LOCAL, socket.gethostname(), *hosts))
        except OSError as error:
            raise OperatorError(f"cannot write {self.keys}: {error.strerror}") from None
        return self.keys / "https.crt", self.keys / "https.key"

    def _authority(self, fleet: str) -> Authority:
        certificate, key = self.keys / "ca.pem", self.keys / "ca.key"
        if not key.exists():
            made = Authority.create(fleet, now=datetime.now(UTC))
            write_file(certificate, made.pem.encode())
            write_file(key, made.key_pem, mode=0o600)
        return self.authority()

    def _client(self, authority: Authority, name: str, stem: str) -> None:
        path, key = self.keys / f"{stem}.crt", self._key(stem)
        if path.exists() and not _is_due(path):
            return
        now = datetime.now(UTC)
        issued = authority.issue_client(name, key.public, now=now, days=_LIFE_DAYS)
        write_file(path, issued.pem.encode())

    def _server(self, authority: Authority, stem: str, names: tuple[str, ...]) -> None:
        path, key = self.keys / f"{stem}.crt", self._key(stem)
        hosts = tuple(dict.fromkeys(name for name in names if name))
        if path.exists() and not _is_due(path) and set(hosts) <= hosts_of(path.read_text()):
            return
        if path.exists():  # names that were added before stay good
            hosts = tuple(dict.fromkeys((*hosts, *sorted(hosts_of(path.read_text())))))
        now = datetime.now(UTC)
        issued = authority.issue_server(hosts, key.public, now=now, days=_LIFE_DAYS)
        write_file(path, issued.pem.encode())

    def _key(self, stem: str) -> PrivateKey:
        path = self.keys / f"{stem}.key"
        if not path.exists():
            write_file(path, PrivateKey.generate_p256().to_pem(), mode=0o600)
        return PrivateKey.load(path)

    def authority(self) -> Authority:
        """The certificate authority that `prepare` made before.

        Raises:
            OperatorError: there is none.
        """
        certificate, key = self.keys / "ca.pem", self.keys / "ca.key"
        try:
            return Authority.load(certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            raise OperatorError(f"cannot read {error.filename}: {error.strerror}") from None

    def director(self) -> PrivateKey:
        """The key that signs orders."""
        return PrivateKey.load(self.keys / "director.pem")

    def repository(self, named: PublicKey | None = None) -> PrivateKey:
        """The key that keeps metadata fresh: the present one, or the next where a root names it.

        The next takes the present one's place here, so that a stop between the new root and this
        costs nothing.
        """
        present, following = self.keys / "repository.pem", self.keys / "repository-next.pem"
        if named is not None and following.exists():
            key = PrivateKey.load(following)
            if key.public == named:
                following.replace(present)
                sync_folder(self.keys)
        return PrivateKey.load(present)

    def next_key(self, stem: str) -> PrivateKey:
        """The `director` or `repository` key that comes next, made when it is first asked for."""
        path = self.keys / f"{stem}-next.pem"
        if not path.exists():
            write_file(path, PrivateKey.generate_ed25519().to_pem(), mode=0o600)
        return PrivateKey.load(path)

    def promote_director(self, listed: frozenset[str]) -> PrivateKey | None:
        """The next director key in the place of the present one, if its PEM is listed."""
        path = self.keys / "director-next.pem"
        if not path.exists() or PrivateKey.load(path).public.pem not in listed:
            return None
        path.replace(self.keys / "director.pem")
        return self.director()

    def read_token(self) -> str:
        """The operator's token.

        Raises:
            OperatorError: there is none, or it cannot be read.
        """
        try:
            return self.token.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(
                f"cannot read the operator's token {self.token}: {error}",
                hint="name the data directory with --data, or set FLEET_TOKEN",
            ) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one process.

        Raises:
            OperatorError: another fleet service runs on it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / "lock").open("w")
        except OSError as error:
            raise OperatorError(
                f"the data directory {self.root} cannot be written: {error.strerror}",
                hint="name another with --data, or let this user write there",
            ) from None
        with lock as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OperatorError(
                    f"another fleet service runs on {self.root}",
                    hint="stop it first, or name another directory with --data",
                ) from None
            yield


def write_file(path: Path, raw: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all, durable when this returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_due(certificate: Path) -> bool:
    return expiry_of(certificate.read_text()) - datetime.now(UTC) < _RENEW
