"""`fleet backup`, `fleet restore`: a control room in one file, and back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import Data, Json, data_dir
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.site_folder import config_for, config_to_restore, fleet_dir, site_of

File = Annotated[Path, typer.Argument(help="The backup, a tar file.", metavar="FILE")]
FleetName = Annotated[
    str | None, typer.Option(help="A fleet of the site in the data directory.", metavar="NAME")
]
ConfigFile = Annotated[Path | None, typer.Option(help="A fleet.toml.")]


def backup(
    file: File,
    data: Data = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    blobs: Annotated[bool, typer.Option(help="With the files of all bundles.")] = True,
    as_json: Json = False,
) -> None:
    """Write data base, keys and blobs to one file, while the service runs.

    The file holds every secret of the fleet: keep it as you keep the keys.
    """
    from edgefleet_fleet import backup as backups
    from edgefleet_fleet.adapters.shelves import open_shelf
    from edgefleet_fleet.adapters.sql.store import Store, sqlite_url

    folder = _folder(data, fleet)
    if not folder.token.exists():
        raise OperatorError(f"{folder.root} is no data directory", hint="name it with --data")
    found = config_for(folder, config, os.environ)
    url = found.database_url or sqlite_url(folder.database)
    with contextlib.closing(Store(url)) as store, _progress() as tell:
        shelf = open_shelf(found, folder)
        size = backups.write(file, folder, store, shelf, blobs=blobs, tell=tell)
    show.one({"file": str(file), "size": size}, as_json=as_json, line=f"{file}: {size} bytes")


def restore(
    file: File,
    data: Data = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a control room of a backup: a new data directory, or nothing.

    The data base and the shelf are those of --config or of FLEET_DATABASE_URL, by default in the
    data directory; a backup of SQLite restores into PostgreSQL, and the other way round.
    """
    from edgefleet_fleet import backup as backups

    folder = _folder(data, fleet)
    is_of_site = site_of(folder) is not None
    if is_of_site and (name := backups.read_about(file).fleet) != folder.root.name:
        raise OperatorError(
            f"{file} is of fleet {name!r}, and a fleet of a site keeps its name",
            hint=f"fleet restore {file} --fleet {name}",
        )
    found = config_to_restore(folder, config, os.environ)
    with _progress() as tell:
        about = backups.restore(file, folder, found, tell=tell)
    view = {"fleet": about.fleet, "created": about.created, "data": str(folder.root)}
    show.one(view, as_json=as_json, line=f"fleet {about.fleet!r} in {folder.root}")


def _folder(data: Path | None, fleet: str | None) -> DataDir:
    folder = DataDir(data_dir(data))
    if fleet is None:
        return folder
    found = fleet_dir(folder, fleet)
    if site_of(found) is None:
        raise OperatorError(f"{folder.root} is no data directory", hint="name it with --data")
    return found


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def tell(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of or None)

        yield tell
