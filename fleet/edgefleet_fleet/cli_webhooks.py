"""`fleet webhooks`: addresses that are told what happens."""

from __future__ import annotations

from typing import Annotated

import typer

from edgefleet_fleet import cli_complete as complete
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client

webhooks = typer.Typer(help="Addresses that are told what happens.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The webhook.", autocompletion=complete.webhooks)]


@webhooks.command("list")
def webhooks_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The webhooks, and how each fares."""
    found = list(client(url, data).list("/webhooks"))
    columns = ("name", "url", "events", "cursor", "attempts", "stopped", "last_error")
    show.rows(found, as_json=as_json, columns=columns)


@webhooks.command("add")
def webhooks_add(
    name: Annotated[str, typer.Argument(help="What the webhook is called.")],
    address: Annotated[str, typer.Argument(help="Where to send: https://…")],
    event: Annotated[
        list[str] | None,
        typer.Option(help="A pattern over what happens; repeatable. Left out: rollout.*"),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Add a webhook and print its secret, with which it can check signatures: said only once."""
    body = {"name": name, "url": address, "events": event or ["rollout.*"]}
    found = client(url, data).post("/webhooks", body)
    show.one(found, as_json=as_json, line=found["secret"])


@webhooks.command("resume")
def webhooks_resume(name: Name, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """Let a webhook go on at once, from where it stopped."""
    client(url, data).post(f"/webhooks/{show.quote(name)}/resume")
    show.talk(f"{name} goes on")


@webhooks.command("remove")
def webhooks_remove(name: Name, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """End a webhook."""
    client(url, data).delete(f"/webhooks/{show.quote(name)}")
    show.talk(f"{name} is removed")
