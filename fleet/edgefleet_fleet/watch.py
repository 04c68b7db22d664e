"""`--watch`: one rollout as it goes, a live table on a terminal, one line per change elsewhere.

The stream of changes says when to look; what is shown is always asked for anew, so a lost notice
or a restarted control room costs nothing but a moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import requests
from rich.console import Console
from rich.live import Live
from rich.table import Table

from edgefleet_contract.errors import TransientError
from edgefleet_fleet.client import Client
from edgefleet_fleet.errors import EXIT_WAITS

_MOVES = frozenset({"running", "scheduled", "aborting"})
_WAITS = frozenset({"draft", "pending_approval", "running", "scheduled"})
_FAILED = frozenset({"bad", "silent", "undelivered", "refused"})
_COLOURS = {
    "good": "green",
    "asked": "yellow",
    "retrying": "yellow",
    "pending": "dim",
    "withdrawn": "dim",
    **dict.fromkeys(_FAILED, "red"),
}
_TITLE = 60
"""Columns, so that the line above a small table is not broken."""


def watch(client: Client, rollout: str, *, console: Console, patience_s: float = 60.0) -> Any:
    """Show a rollout until it stands still; its last view.

    Raises:
        TransientError: the control room did not answer for `patience_s` seconds.
    """
    if not console.is_terminal:
        seen: dict[str, str] = {}
        return _follow(client, rollout, lambda view: _print_news(console, view, seen), patience_s)
    with Live(console=console, auto_refresh=False) as live:
        return _follow(
            client,
            rollout,
            lambda view: live.update(table(view), refresh=True),
            patience_s,
        )


def exit_code(view: Any) -> int:
    """0 where a rollout completed, 1 where it stopped, 5 where it waits for a person."""
    if view["state"] == "completed":
        return 0
    return EXIT_WAITS if view["state"] in _WAITS else 1


def _stands_still(view: Any) -> bool:
    states = view["wave_states"]
    # passed, and not the last: it is held until a person opens the next
    is_held = view["state"] == "running" and states and states[view["wave"]] == "passed"
    return view["state"] not in _MOVES or bool(is_held)


def table(view: Any) -> Table:
    """A rollout as a table."""
    counts = view["counts"]
    title = (
        f"{view['id']}: {view['state']}"
        + (f" ({view['cause']})" if view["cause"] else "")
        + f" · wave {view['wave'] + 1}/{view['wave_count']}"
        + f" · {counts['good']} good, {counts['bad']} bad of {counts['total']}"
        + (f"\n{view['why']}" if view["why"] else "")
        + "".join(f"\nwaits for {what}" for what in view["waits_for"])
    )
    found = Table(title=title, title_justify="left", min_width=_TITLE)
    for column in ("device", "wave", "outcome", "phase", "why"):
        found.add_column(column)
    for device in view["devices"]:
        colour = _COLOURS.get(device["outcome"], "")
        found.add_row(
            device["device"] + ("" if device["online"] else " (offline)"),
            str(device["wave"] + 1),
            f"[{colour}]{device['outcome']}[/]" if colour else device["outcome"],
            device["phase"] or "",
            _why(device),
        )
    return found


def refusals(view: Any) -> list[str]:
    """One line per device that refused or failed; and what a person may do about a stop."""
    found = [
        f"{device['device']}: {_why(device)}"
        for device in view["devices"]
        if device["outcome"] in _FAILED
    ]
    if view["state"] == "paused":
        go_on = f"fleet rollouts resume {view['id']} goes on and takes what failed as seen"
        found.append(f"fleet: hint: {go_on}; abort ends it; revert sends devices back")
    return found


def _follow(client: Client, rollout: str, show: Callable[[Any], None], patience_s: float) -> Any:
    last_answer = time.monotonic()
    while True:
        try:
            with client.watch() as stream:
                lines = stream.iter_lines(chunk_size=1)
                while True:
                    view = client.get(f"/rollouts/{rollout}")
                    last_answer = time.monotonic()
                    show(view)
                    if _stands_still(view):
                        return view
                    if not _wait_for_news(lines):
                        break
        except (TransientError, requests.RequestException) as error:
            if time.monotonic() - last_answer > patience_s:
                raise TransientError(f"the control room went away: {error}") from None
            time.sleep(0.5)


def _wait_for_news(lines: Any) -> bool:
    """Wait for a notice; False where the stream ended."""
    return any(line.startswith((b"data:", b":")) for line in lines)


def _print_news(console: Console, view: Any, seen: dict[str, str]) -> None:
    for device in view["devices"]:
        now = f"{device['outcome']} {device['phase'] or ''} {_why(device)}".strip()
        if device["outcome"] != "pending" and seen.get(device["device"]) != now:
            seen[device["device"]] = now
            console.print(
                f"{view['id']} {device['device']}: {now}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    why = f": {view['why']}" if view["why"] else ""
    now = f"{view['state']}, wave {view['wave'] + 1}/{view['wave_count']}{why}"
    if seen.get("") != now:
        seen[""] = now
        _say(console, f"{view['id']}: {now}")
    if view["wave_states"] and view["wave_states"][view["wave"]] != "open":  # devices have lines
        waits = ", ".join(view["waits_for"])
        if waits and seen.get("waits") != waits:
            _say(console, f"{view['id']}: waits for {waits}")
        seen["waits"] = waits


def _say(console: Console, line: str) -> None:
    """One line, however long: it may be read by a program."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _why(device: Any) -> str:
    again = _again(device)
    if not device["reason"]:
        return again
    detail = f" ({device['detail']})" if device["detail"] else ""
    return f"{device['reason']}: {device['reason_text']}{detail}{again and f'; {again}'}"


def _again(device: Any) -> str:
    """What there is to say of tries to fetch it that failed."""
    if not device["tries"]:
        return ""
    if device["outcome"] == "retrying":
        at = datetime.fromtimestamp(device["retry_at"], UTC).astimezone()
        return f"try {device['tries']} failed, asked again at {at:%H:%M:%S}"
    return f"{device['tries']} tries failed" if device["outcome"] in _FAILED else ""
