"""`fleet bundles`, `fleet models`: what is on the shelf, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.push import check_files, read_bundle

bundles = typer.Typer(help="The bundles on the shelf.", no_args_is_help=True)
models = typer.Typer(help="The models, their versions, and where they run.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="model-version, or the digest's beginning.")]


@models.command("list")
def models_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The models."""
    found = list(client(url, data).list("/models"))
    columns = ("model", "newest", "versions", "devices", "rollout")
    show.rows(found, as_json=as_json, columns=columns)


@models.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Every version of a model: its variants, who signed it, how many devices run it."""
    found = client(url, data).get(f"/models/{show.quote(model)}")
    if as_json:
        show.json(found)
        return
    for version in found["versions"]:
        version["variants"] = [variant["name"] for variant in version["variants"]]
    columns = ("version", "digest", "size", "signer", "released", "revoked", "variants", "devices")
    show.rows(found["versions"], as_json=False, columns=columns)


@bundles.command("list")
def bundles_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The bundles, newest first."""
    found = list(client(url, data).list("/bundles"))
    columns = ("name", "digest", "size", "signer", "complete", "created_at")
    show.rows(found, as_json=as_json, columns=columns)


@bundles.command("show")
def bundles_show(
    bundle: Name,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """One bundle with its files."""
    found = client(url, data).get(f"/bundles/{show.quote(bundle)}")
    show.bundle(found, as_json=as_json)


@bundles.command("push")
def bundles_push(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.", metavar="DIR")],
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Push what the fleet does not verify.")
    ] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Upload a bundle without rolling it out."""
    room = client(url, data)
    found = read_bundle(bundle)
    if not no_check:
        check_files(found)
    view = show.upload(room, found, check=not no_check)
    show.one(view, as_json=as_json, line=view["digest"])


@bundles.command("remove")
def bundles_remove(bundle: Name, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """Take a bundle away; refused while a release, a rollout, an order or a device refers to it."""
    room = client(url, data)
    found = room.get(f"/bundles/{show.quote(bundle)}")
    room.delete(f"/bundles/{found['digest']}")
    show.talk(f"{found['name']} is removed")
