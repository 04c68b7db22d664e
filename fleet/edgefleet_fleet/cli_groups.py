"""`fleet groups`: filters with a name, and whom a filter means."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefleet_fleet import cli_complete as complete
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.filter_parser import parse_filter

groups = typer.Typer(help="Filters with a name: --to group:NAME.", no_args_is_help=True)
Name = Annotated[
    str, typer.Argument(help="What the group is called.", autocompletion=complete.groups)
]


@groups.command("create")
def groups_create(
    name: Name,
    wanted: Annotated[str, typer.Argument(metavar="FILTER", help="Whom it means.")],
    about: Annotated[str, typer.Option(help="What it is for.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a group of that name.")
    ] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Make a group, and say how many devices are in it now."""
    parse_filter(wanted)
    body = {"filter": wanted, "about": about, "replace": replace}
    found = client(url, data).put(f"/groups/{show.quote(name)}", body)
    show.one(found, as_json=as_json, line=f"{found['name']}: {found['count']} devices")


@groups.command("list")
def groups_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The groups, and how many devices are in each."""
    found = list(client(url, data).list("/groups"))
    show.rows(found, as_json=as_json, columns=("name", "filter", "count", "about"))


@groups.command("show")
def groups_show(
    name: Name, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """One group, and the devices in it."""
    found = client(url, data).get(f"/groups/{show.quote(name)}")
    lines = [f"{found['name']}: {found['filter']}", *found["devices"]]
    show.one(found, as_json=as_json, line="\n".join(lines))


@groups.command("delete")
def groups_delete(name: Name, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """Forget a group; rollouts that named it keep what it meant."""
    client(url, data).delete(f"/groups/{show.quote(name)}")
    show.talk(f"group {name} is deleted")


@groups.command("preview")
def groups_preview(
    wanted: Annotated[str, typer.Argument(metavar="FILTER", help="Whom; also group:NAME.")],
    limit: Annotated[int, typer.Option("-n", help="How many names to print.", min=0)] = 50,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """How many devices a filter means now, and which."""
    parse_filter(wanted)
    found = client(url, data).get(f"/preview?to={show.quote(wanted)}")
    if as_json:
        show.json(found)
        return
    typer.echo(f"{found['count']} devices")
    for device in found["devices"][:limit]:
        tags = " ".join(f"{key}={value}" for key, value in sorted(device["tags"].items()))
        typer.echo(f"{device['id']}  {device['hardware_class']}  {tags}".rstrip())
    if len(found["devices"]) > limit:
        show.talk(f"and {len(found['devices']) - limit} more: -n, or --json")
