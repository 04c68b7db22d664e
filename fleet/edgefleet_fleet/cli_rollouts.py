"""`fleet rollouts …`: what runs, and what a person does with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefleet_fleet import cli_show as show
from edgefleet_fleet import watch as watching
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.client import Client
from edgefleet_fleet.rollout_verbs import SENTENCES, Verb

rollouts = typer.Typer(help="The rollouts, running and past.", no_args_is_help=True)


def watch_rollout(client: Client, view: Any, *, as_json: bool) -> int:
    """Stay until a rollout stands still; the exit code that says how."""
    view = watching.watch(client, view["id"], console=show.STDERR)
    if as_json:
        show.json(view)
    for line in watching.refusals(view):
        show.talk(line)
    return watching.exit_code(view)


@rollouts.command("list")
def rollouts_list(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The rollouts, newest first."""
    show.rollouts(client(url, data).get("/rollouts")["rollouts"], as_json=as_json)


@rollouts.command("show")
def rollouts_show(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """One rollout with its devices."""
    show.rollout(client(url, data).get(f"/rollouts/{show.quote(rollout)}"), as_json=as_json)


@rollouts.command("watch")
def rollouts_watch(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> int:
    """Stay until a rollout stands still: 0 when it completed, 1 when it stopped."""
    room = client(url, data)
    view = room.get(f"/rollouts/{show.quote(rollout)}")
    return watch_rollout(room, view, as_json=as_json)


def _steering(verb: Verb) -> Callable[..., None]:
    def steer(
        rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
    ) -> None:
        _by_hand(rollout, verb, as_json=as_json, url=url, data=data)

    return steer


for _verb in Verb:
    if _verb is not Verb.ABORT:
        rollouts.command(_verb.value, help=SENTENCES[_verb])(_steering(_verb))


@rollouts.command("abort", help=SENTENCES[Verb.ABORT])
def rollouts_abort(
    rollout: str,
    revert: Annotated[
        bool, typer.Option("--revert", help="Send devices that have it back to what they ran.")
    ] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """End a rollout, with or without a way back."""
    verb = Verb.REVERT if revert else Verb.ABORT
    _by_hand(rollout, verb, as_json=as_json, url=url, data=data)


def _by_hand(rollout: str, verb: Verb, *, as_json: bool, url: str, data: Path | None) -> None:
    view = client(url, data).post(f"/rollouts/{show.quote(rollout)}/{verb}")
    show.one(view, as_json=as_json, line=f"{view['id']}: {view['state']}")
