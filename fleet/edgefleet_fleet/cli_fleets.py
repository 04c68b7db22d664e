"""`fleet fleets`: several fleets in one service, each on its own."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client

fleets = typer.Typer(help="The fleets of a site, besides its own.", no_args_is_help=True)


@fleets.command("list")
def fleets_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The fleets and how each is; of what is in them nothing."""
    found = client(url, data).get("/fleets")["fleets"]
    columns = ("name", "state", "url", "mqtt_port", "why")
    show.rows(found, as_json=as_json, columns=columns)


@fleets.command("add")
def fleets_add(
    name: Annotated[str, typer.Argument(help="What the fleet is called.")],
    mqtt_port: Annotated[
        int | None, typer.Option(help="The port of its broker; left out: one that is free.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Make a fleet, start it, and print the token of its first admin, which lives 7 days.

    The token is a secret, and said only once. The fleet's URL is what FLEET_URL is set to.
    """
    found = client(url, data).post("/fleets", {"name": name, "mqtt_port": mqtt_port})
    show.talk(f"fleet {name!r}: {found['url']}, broker on port {found['mqtt_port']}")
    show.one(found, as_json=as_json, line=found["token"])


@fleets.command("remove")
def fleets_remove(
    name: Annotated[str, typer.Argument(help="The fleet.")],
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Stop a fleet. Its data lies in fleets/.removed of the data directory until you delete it."""
    client(url, data).delete(f"/fleets/{show.quote(name)}")
    show.talk(f"{name} is removed; its data lies in fleets/.removed")
