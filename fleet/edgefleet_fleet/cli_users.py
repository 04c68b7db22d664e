"""`fleet users`: who may ask the control room, and for what."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.roles import Role

users = typer.Typer(help="The people and programs that may ask.", no_args_is_help=True)


@users.command("list")
def users_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The users, revoked ones too."""
    found = list(client(url, data).list("/users"))
    columns = ("name", "role", "created_at", "created_by", "expires_at", "revoked")
    show.rows(found, as_json=as_json, columns=columns)


@users.command("add")
def users_add(
    name: Annotated[str, typer.Argument(help="What the user is called.")],
    role: Annotated[Role, typer.Option(help="What the user may do.")],
    days: Annotated[
        float | None, typer.Option(help="How long the token lives; left out: until revoked.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Add a user and print its token. The token is a secret, and said only once."""
    found = client(url, data).post("/users", {"name": name, "role": role, "days": days})
    show.one(found, as_json=as_json, line=found["token"])


@users.command("revoke")
def users_revoke(
    name: Annotated[str, typer.Argument(help="The user.")],
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """End a user's token and pages, at once."""
    client(url, data).delete(f"/users/{show.quote(name)}")
    show.talk(f"{name} is revoked")
