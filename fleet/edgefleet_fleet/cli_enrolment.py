"""`fleet devices claim`, `requests`, `approve`, `deny`: how devices come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.admission import Listed, parse_list
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client


def claim(
    uses: Annotated[
        int | None,
        typer.Option(help="How many devices may use it; left out: as many as are named, or one."),
    ] = None,
    hours: Annotated[float, typer.Option(help="How long it lives.")] = 24,
    approve: Annotated[
        bool, typer.Option("--approve", help="Whoever is not named waits until you approve it.")
    ] = False,
    named: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="NAME",
            help="A device that comes in at once; without --approve, nobody else comes in."
            " 'NAME KEY-ID' pins its key. Repeatable.",
        ),
    ] = None,
    for_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same, a device on each line.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Make a claim: the line that a new device enrols with. It is a secret, and said only once."""
    listed = [entry for text in named or () for entry in _some(text, what="--for")]
    listed += _read_list(for_file)
    body = {
        "uses": uses,
        "hours": hours,
        "approve": approve,
        "listed": [{"device": entry.device, "key_id": entry.key_id} for entry in listed],
    }
    found = client(url, data).post("/claims", body)
    show.one(found, as_json=as_json, line=found["claim"])


def requests(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> None:
    """The devices that wait for your approval, the oldest first."""
    found = list(client(url, data).list("/requests"))
    columns = ("device", "key_id", "address", "created_at", "state", "board")
    show.rows(found, as_json=as_json, columns=columns)


def approve(
    device: Annotated[str, typer.Argument(help="The device's name.")],
    key_id: Annotated[
        str,
        typer.Option(help="The key id that the device prints, or its first 16 digits or more."),
    ] = "",
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Let a device in that waits. Name the key id that the device itself prints, to be sure."""
    path = f"/requests/{show.quote(device)}/approve?key_id={show.quote(key_id)}"
    found = client(url, data).post(path)
    show.talk(f"{device} is approved, with the key {found['key_id']}")


def deny(
    device: Annotated[str, typer.Argument(help="The device's name.")],
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Refuse a device that waits; its key does not come in by that claim any more."""
    client(url, data).post(f"/requests/{show.quote(device)}/deny")
    show.talk(f"{device} is denied")


def _read_list(file: Path | None) -> tuple[Listed, ...]:
    if file is None:
        return ()
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"cannot read the list: {error}") from None
    return _some(text, what=str(file))


def _some(text: str, *, what: str) -> tuple[Listed, ...]:
    """A list that names somebody: an empty one must not become a claim for everybody."""
    found = parse_list(text, what=what)
    if not found:
        raise OperatorError(f"{what} names no device")
    return found
