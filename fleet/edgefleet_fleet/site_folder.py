"""Where the fleets of a site lie, and what each is configured with.

    fleet-data/             the site, which is a fleet itself: a data directory as without others
      fleets/NAME/          another fleet: a data directory of its own (keys, token, blobs, broker)
        fleet.toml          where it differs from the site; `mqtt_port` or `[broker]` at least
      fleets/.removed/      what was taken out of service, until somebody deletes it

The folders are the list of fleets; there is no other. What belongs to the HTTP port is the site's
for all of them. What holds data is never shared: a fleet has its own SQLite file or, where the
site is on PostgreSQL, a schema of its own there; its own blobs, or a prefix of its own in the
site's bucket; and a broker of its own.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import OperatorError
from edgefleet_fleet.config import Config, load
from edgefleet_fleet.datadir import DataDir, sync_folder, write_file

FOLDER: Final = "fleets"
MAX_NAME: Final = 36  # PostgreSQL's names have 63 letters, and a removed schema's name is longer
_REMOVED: Final = ".removed"
_OF_THE_PORT: Final = ("listen", "public_host", "tls", "tls_cert", "tls_key")
_INHERITED: Final = (
    *("mqtt_listen", "certificate_days", "order_days", "telemetry_keep", "events_keep"),
    *("commands_keep", "max_upload_bytes"),
)


def check_name(name: str) -> str:
    """The name, if a fleet of a site can have it.

    Raises:
        OperatorError: it cannot.
    """
    if not is_name(name) or len(name) > MAX_NAME:
        raise OperatorError(
            f"a fleet cannot be called {name[:80]!r}",
            hint=f"[a-z0-9][a-z0-9._-]*, up to {MAX_NAME} letters",
        )
    return name


def names(site: DataDir) -> tuple[str, ...]:
    """The fleets that a site has besides its own, by name."""
    folder = site.root / FOLDER
    if not folder.is_dir():
        return ()
    found = (path.name for path in folder.iterdir() if path.is_dir())
    return tuple(sorted(name for name in found if is_name(name) and len(name) <= MAX_NAME))


def fleet_dir(site: DataDir, name: str) -> DataDir:
    """The data directory of a site's fleet, which need not be there. Raises as `check_name`."""
    return DataDir(site.root / FOLDER / check_name(name))


def site_of(data: DataDir) -> DataDir | None:
    """The site that a data directory is a fleet of; None for one that stands alone, or a site."""
    folder = data.root.resolve().parent
    site = DataDir(folder.parent)
    return site if folder.name == FOLDER and site.token.exists() else None


def prefix_of(name: str) -> str:
    """Where the HTTP of a fleet is, below the site's own."""
    return f"/{FOLDER}/{name}"


def config_for(
    data: DataDir, file: Path | None, environ: Mapping[str, str], **flags: Any
) -> Config:
    """The configuration of a data directory, be it a site or a fleet of one.

    Raises:
        OperatorError: as `load`, or the fleet's says nothing of its broker.
    """
    site = site_of(data)
    if site is None:
        return load(file or _own_file(data), environ, **flags)
    whole = load(_own_file(site), environ)
    base_url = whole.base_url(whole.listen_address[1])
    return config_of(data, whole, base_url=base_url)


def config_to_restore(data: DataDir, file: Path | None, environ: Mapping[str, str]) -> Config:
    """The data base and the shelf that a backup is restored into. Raises as `load`.

    The directory is not there yet: a fleet's own configuration comes out of the backup.
    """
    site = site_of(data)
    if site is None:
        return load(file, environ)
    whole = load(_own_file(site), environ)
    return _config_of(data, whole, base_url=whole.base_url(0), file=file)


def config_of(data: DataDir, site: Config, *, base_url: str) -> Config:
    """The configuration of a site's fleet. Raises as `config_for`."""
    found = _config_of(data, site, base_url=base_url, file=_own_file(data))
    if not found.mqtt_port and found.broker is None:
        raise OperatorError(
            f"fleet {data.root.name!r} has no broker",
            hint=f"mqtt_port = … in {data.config}, another than the other fleets'",
        )
    return found


def _config_of(data: DataDir, site: Config, *, base_url: str, file: Path | None) -> Config:
    name = data.root.name
    under: dict[str, Any] = {key: getattr(site, key) for key in _INHERITED}
    under["mqtt_port"] = 0
    if site.database_url.startswith("postgresql"):
        from edgefleet_fleet.adapters.sql.store import in_schema

        under["database_url"] = in_schema(site.database_url, schema_of(name))
    if site.shelf:
        under["shelf"] = f"{site.shelf.rstrip('/')}/{FOLDER}/{name}"
    given: dict[str, Any] = {key: getattr(site, key) for key in _OF_THE_PORT}
    given |= {"name": name, "public_url": base_url + prefix_of(name)}
    return load(file, {}, under=under, **given)


def schema_of(name: str) -> str:
    """The schema of a fleet in the site's PostgreSQL data base."""
    return f"fleet_{name}"


def make(data: DataDir, *, mqtt_port: int) -> None:
    """A new fleet's data directory, with its configuration and nothing else.

    Raises:
        OperatorError: it is there, or cannot be written.
    """
    try:
        data.root.parent.mkdir(exist_ok=True, mode=0o711)
        data.root.mkdir(mode=0o711)
        write_file(data.config, f"mqtt_port = {mqtt_port}\n".encode())
        sync_folder(data.root.parent)
    except OSError as error:
        raise OperatorError(f"cannot make {data.root}: {error.strerror}") from None


def unmake(data: DataDir) -> None:
    """Forget a fleet that `make` made and that never came up."""
    shutil.rmtree(data.root, ignore_errors=True)


def set_aside(data: DataDir, config: Config | None) -> Path:
    """Take a fleet that does not run out of the list; where its data lies from now on.

    The name may be given again: the schema in a shared data base gets another name as well.

    Raises:
        OperatorError: the data base or the disk refuses it; then nothing was changed.
    """
    now = int(time.time())
    place = data.root.parent / _REMOVED / f"{data.root.name}-{now}"
    if config is not None and config.database_url:
        from edgefleet_fleet.adapters.sql.store import Store

        with contextlib.closing(Store(config.database_url)) as store:
            store.set_aside(f"{schema_of(data.root.name)}_removed_{now}")
    try:
        place.parent.mkdir(exist_ok=True, mode=0o700)
        data.root.rename(place)
        sync_folder(data.root.parent)
    except OSError as error:
        raise OperatorError(f"cannot move {data.root}: {error.strerror}") from None
    return place


def free_port(after: int, taken: Iterable[int]) -> int:
    """The first port above `after` that no fleet has and nobody listens on now.

    Raises:
        OperatorError: there is none.
    """
    known = set(taken)
    for port in range(max(after, 1024) + 1, 65536):
        if port in known:
            continue
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise OperatorError(f"no port above {after} is free", hint="name one with --mqtt-port")


def _own_file(data: DataDir) -> Path | None:
    return data.config if data.config.exists() else None
