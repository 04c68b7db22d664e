"""Options that many commands take, and the client that they make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from edgefleet_fleet.client import Client
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.site_folder import site_of

Data = Annotated[Path | None, typer.Option(help="The data directory.", envvar="FLEET_DATA")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str, typer.Option(help="The control room.", envvar="FLEET_URL")]
DEFAULT_URL: Final = "http://127.0.0.1:8080"
CA_VARIABLE: Final = "FLEET_CA"


def client(url: str, data: Path | None) -> Client:
    """The API, with the operator's token from the environment or the data directory.

    The control room's certificate is to be from the authority in `FLEET_CA`, else from the data
    directory's own, else from one that the system knows.
    """
    folder = DataDir(data_dir(data))
    token = os.environ.get("FLEET_TOKEN") or folder.read_token()
    home = site_of(folder) or folder  # the port is the site's
    named, own = os.environ.get(CA_VARIABLE), home.keys / "ca.pem"
    return Client(url, token, ca=Path(named) if named else own if os.access(own, os.R_OK) else None)


def data_dir(data: Path | None) -> Path:
    """The data directory: given, systemd's, or `fleet-data`."""
    if data is not None:
        return data
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(state) if state else Path("fleet-data")
