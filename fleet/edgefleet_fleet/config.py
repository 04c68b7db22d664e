"""The configuration of the control room: one frozen dataclass, read once, passed down.

Rules: `fleet.toml` is optional; what the command line says wins over the file; unknown keys are
refused by name. Secrets (the operator's token, keys) are never configuration: they are files of
the data directory. The data base address may hold a password, so it may also come from
`$FLEET_DATABASE_URL`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edgefleet_contract import codec
from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import Malformed, OperatorError

FILE: Final = "fleet.toml"


class Tls(StrEnum):
    """Whose certificate the HTTP port shows: none, or one of the fleet's own authority."""

    OFF = "off"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class ExternalBroker:
    """A broker that somebody else runs: `mqtts://host:port` and the PEM files to reach it."""

    url: str
    cafile: str
    cert: str
    key: str

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; 8883 where the address names none."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 8883


@dataclass(frozen=True, slots=True)
class Config:
    """How one control room runs.

    `name` is the fleet's (empty: what the data directory says). `listen` is `host:port`, port 0
    for any free one. `public_url` and `public_host` are how devices reach the HTTP service and the
    broker (empty: derived from `listen`). `tls` is `off` or `own`; `tls_cert` and `tls_key` are PEM
    files for TLS with a certificate from elsewhere. `shelf` is where blobs lie, `s3://bucket/prefix`
    (empty: `blobs/` of the data directory). `certificate_days` and `order_days` are lives in days;
    `telemetry_keep` is how many samples are kept per device and stream, `events_keep` and
    `commands_keep` how many of these per device; `calls_per_minute` is how many calls of the API
    each user has (0: no limit).
    """

    name: str = ""
    listen: str = "127.0.0.1:8080"
    public_url: str = ""
    public_host: str = ""
    tls: Tls = Tls.OFF
    tls_cert: str = ""
    tls_key: str = ""
    mqtt_listen: str = ""
    mqtt_port: int = 8883
    database_url: str = ""
    shelf: str = ""
    certificate_days: int = 90
    order_days: int = 7
    telemetry_keep: int = 360
    events_keep: int = 2000
    commands_keep: int = 200
    max_upload_bytes: int = 4 * 1024**3
    calls_per_minute: int = 1200
    broker: ExternalBroker | None = None

    def __post_init__(self) -> None:
        if self.name and not is_name(self.name):
            raise Malformed(f"name {self.name[:80]!r}: a fleet is named [a-z0-9][a-z0-9._-]*")
        _split(self.listen)
        if not 0 <= self.mqtt_port < 65536:
            raise Malformed(f"mqtt_port {self.mqtt_port}")
        if not 1 <= self.order_days <= 14 or not 1 <= self.certificate_days <= 3650:
            raise Malformed("order_days must be 1 to 14, certificate_days 1 to 3650")
        if self.telemetry_keep < 1 or self.max_upload_bytes < 1:
            raise Malformed("telemetry_keep and max_upload_bytes must be 1 or more")
        if self.calls_per_minute < 0:
            raise Malformed("calls_per_minute must be 0 (no limit) or more")
        if self.events_keep < 1 or self.commands_keep < 1:
            raise Malformed("events_keep and commands_keep must be 1 or more")
        if self.public_url and urlsplit(self.public_url).scheme not in ("http", "https"):
            raise Malformed(f"public_url {self.public_url[:80]!r} is not an http address")
        self._check_tls()

    def _check_tls(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise Malformed("tls_cert and tls_key come together")
        if self.tls is Tls.OWN and self.tls_cert:
            raise Malformed("tls is 'own', and tls_cert names another certificate: leave one out")
        if self.is_tls and self.public_url.startswith("http:"):
            raise Malformed(
                f"public_url {self.public_url[:80]!r} is not https, and the port speaks TLS"
            )

    @property
    def is_tls(self) -> bool:
        """Whether the HTTP port speaks TLS, and nothing else."""
        return self.tls is Tls.OWN or bool(self.tls_cert)

    @property
    def is_exposed(self) -> bool:
        """Whether the HTTP port is in the clear and can be reached from other machines."""
        host = self.listen_address[0]
        return not self.is_tls and host != "localhost" and not _is_loopback(host)

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of the HTTP service."""
        return _split(self.listen)

    def base_url(self, port: int) -> str:
        """How devices reach the HTTP service that listens on `port`."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = self.listen_address[0]
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
            host = self.public_host or socket.gethostname()
        scheme = "https" if self.is_tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def broker_host(self) -> str:
        """The host that devices are told to find the broker on."""
        if self.broker is not None:
            return self.broker.address[0]
        return self.public_host or urlsplit(self.base_url(0)).hostname or "127.0.0.1"


def load(
    file: Path | None,
    environ: Mapping[str, str],
    *,
    under: Mapping[str, Any] | None = None,
    **flags: Any,
) -> Config:
    """The configuration of a file, the environment and the flags that were given (not None).

    `under` is what holds where neither says anything else, in the place of the defaults.

    Raises:
        OperatorError: the file cannot be read, or a key or value in it is not known.
    """
    value: dict[str, Any] = {}
    where = str(file) if file is not None else "command line"
    if file is not None:
        try:
            value = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise OperatorError(f"cannot read {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise OperatorError(f"{file} is not TOML: {error}") from None
    value = {**(under or {}), **value}
    if environ.get("FLEET_DATABASE_URL"):
        value["database_url"] = environ["FLEET_DATABASE_URL"]
    value |= {name: flag for name, flag in flags.items() if flag is not None}
    try:
        return codec.decode(Config, value, what=where)
    except Malformed as error:
        raise OperatorError(error.message, hint=error.hint) from None


def option_names() -> tuple[str, ...]:
    """The keys that `fleet.toml` knows."""
    return tuple(field.name for field in dataclasses.fields(Config))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise Malformed(f"listen {listen[:80]!r} is not host:port")
    return host.strip("[]"), int(port)
