"""`fleet bundles`, `fleet models`: what is on the shelf, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.trust import release_path
from edgefleet_fleet import cli_complete as complete
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_keys import load_key
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.client import Client
from edgefleet_fleet.push import BundleDir, check_files, read_bundle

bundles = typer.Typer(help="The bundles on the shelf.", no_args_is_help=True)
models = typer.Typer(help="The models, their versions, and where they run.", no_args_is_help=True)
Name = Annotated[
    str,
    typer.Argument(
        help="model-version, or the digest's beginning.", autocompletion=complete.bundles
    ),
]


@models.command("list")
def models_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The models."""
    found = list(client(url, data).list("/models"))
    columns = ("model", "newest", "versions", "devices", "rollout")
    show.rows(found, as_json=as_json, columns=columns)


@models.command("show")
def models_show(
    model: Annotated[str, typer.Argument(help="The model's name.", autocompletion=complete.models)],
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
    key: Annotated[
        Path | None, typer.Option(help="The publisher's private key: releases the bundle as well.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="The key's passphrase: the file's first line.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Upload a bundle without rolling it out; with --key, let it be rolled out from now on."""
    room = client(url, data)
    found = read_bundle(bundle)
    if not no_check:
        check_files(found)
    view = show.upload(room, found, check=not no_check)
    if key is not None:
        release(room, found, load_key(key, passphrase_file))
    show.one(view, as_json=as_json, line=view["digest"])


@bundles.command("remove")
def bundles_remove(bundle: Name, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """Take a bundle away; refused while a release, a rollout, an order or a device refers to it."""
    room = client(url, data)
    found = room.get(f"/bundles/{show.quote(bundle)}")
    room.delete(f"/bundles/{found['digest']}")
    show.talk(f"{found['name']} is removed")


def release(room: Client, bundle: BundleDir, publisher: PrivateKey) -> None:
    """Say in the publisher's name what a model and version is, where it is not said yet."""
    from edgefleet_fleet import ceremony

    manifest = bundle.manifest
    trust = room.get("/trust")
    path = release_path(manifest.model, manifest.version)
    if trust["released"].get(path) == bundle.digest:
        return
    body = ceremony.release(
        trust, publisher, manifest.model, manifest.version, bundle.manifest_bytes
    )
    room.post("/trust/targets", body)
    show.talk(f"released {manifest.name}")
