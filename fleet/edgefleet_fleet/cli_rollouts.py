"""`fleet rollouts …`: what runs, and what a person does with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgefleet_fleet import cli_show as show
from edgefleet_fleet import watch as watching
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.client import Client

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


@rollouts.command("pause")
def rollouts_pause(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """Stop asking more devices."""
    _by_hand(rollout, "pause", as_json=as_json, url=url, data=data)


@rollouts.command("resume")
def rollouts_resume(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """Go on; the failures so far are taken as seen."""
    _by_hand(rollout, "resume", as_json=as_json, url=url, data=data)


@rollouts.command("abort")
def rollouts_abort(
    rollout: str,
    revert: Annotated[
        bool, typer.Option("--revert", help="Send devices that have it back to what they ran.")
    ] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """End it; devices that have the new version keep it."""
    verb = "revert" if revert else "abort"
    _by_hand(rollout, verb, as_json=as_json, url=url, data=data)


@rollouts.command("revert")
def rollouts_revert(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """Send every device that has it back to what it ran before; of a completed one too."""
    _by_hand(rollout, "revert", as_json=as_json, url=url, data=data)


@rollouts.command("start")
def rollouts_start(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """Begin a draft, or one that is scheduled, now."""
    _by_hand(rollout, "start", as_json=as_json, url=url, data=data)


@rollouts.command("approve")
def rollouts_approve(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """Agree with it, as a second person."""
    _by_hand(rollout, "approve", as_json=as_json, url=url, data=data)


@rollouts.command("deny")
def rollouts_deny(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """Say no to it."""
    _by_hand(rollout, "deny", as_json=as_json, url=url, data=data)


@rollouts.command("promote")
def rollouts_promote(
    rollout: str, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None
) -> None:
    """Open the next wave: the one that waits for a person, or before soak and gates let it."""
    _by_hand(rollout, "promote", as_json=as_json, url=url, data=data)


def _by_hand(rollout: str, verb: str, *, as_json: bool, url: str, data: Path | None) -> None:
    view = client(url, data).post(f"/rollouts/{show.quote(rollout)}/{verb}")
    show.one(view, as_json=as_json, line=f"{view['id']}: {view['state']}")
