"""`fleet devices` beyond enrolment: tags, events, commands, quarantines, the end of a device."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer

from edgefleet_contract.commands import Kind
from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import cli_complete as complete
from edgefleet_fleet import cli_show as show
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.client import Client, new_key
from edgefleet_fleet.errors import EXIT_FAILED, EXIT_UNREACHABLE
from edgefleet_fleet.happenings import HistoryKind

_LOOK_S: Final = 0.2
Device = Annotated[str, typer.Argument(help="The device's name.", autocompletion=complete.devices)]
MaybeDevice = Annotated[str, typer.Argument(help="The device's name; left out with --to.")]
To = Annotated[str, typer.Option(help="All that a filter means, instead of one device.")]


def tag(
    device: Device,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Tags to set.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A tag to remove; repeatable.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Set and remove tags, and print those that the device has then."""
    wanted = dict(_pair(text) for text in tags or ())
    body = {"tags": wanted, "remove": remove or []}
    found = client(url, data).post(f"/devices/{show.quote(device)}/tags", body)["tags"]
    line = " ".join(f"{key}={value}" for key, value in sorted(found.items()))
    show.one(found, as_json=as_json, line=line)


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise OperatorError(f"{text!r} is no tag", hint="write key=value; --remove KEY takes one")
    return key.strip(), value.strip()


def events(
    device: Device,
    limit: Annotated[int, typer.Option("-n", help="How many.", min=1, max=1000)] = 50,
    before: Annotated[
        int | None, typer.Option(help="Only those below this number: the next page.")
    ] = None,
    kind: Annotated[
        list[HistoryKind] | None, typer.Option(help="Only of this kind; repeatable.")
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """What happened to a device, newest first: installs, presence, certificates, tags, commands."""
    asked = [("limit", limit), *(("before", before) for _ in range(before is not None))]
    query = urlencode([*asked, *(("kind", found.value) for found in kind or ())])
    found = client(url, data).get(f"/devices/{show.quote(device)}/events?{query}")
    if as_json:
        show.json(found)
        return
    for event in found["events"]:
        typer.echo(f"{event['number']}  {show.event(event)}")
    if found["next"] is not None:
        show.talk(f"older ones: --before {found['events'][-1]['number']}")


def command(
    target: Annotated[
        list[str],
        typer.Argument(metavar="[DEVICE] KIND", help=f"The device, and one of: {', '.join(Kind)}."),
    ],
    to: To = "",
    slot: Annotated[str, typer.Option(help="Which model: its slot.")] = "",
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", help="For predict: a JSON request (Open Inference Protocol), or -."
        ),
    ] = None,
    lines: Annotated[int, typer.Option("-n", help="For logs: how many lines.")] = 100,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Stay until they answered.")
    ] = True,
    timeout: Annotated[int, typer.Option(help="Seconds until it is too late.")] = 60,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> int:
    """Ask a device, or all that a filter means, to do something once.

    The exit code is 0 when all did it, 1 when one refused or failed, 4 when one did not answer.
    """
    device, kind = _split(target, to)
    body = {
        "kind": kind,
        "device": device,
        "to": to,
        "slot": slot,
        "lines": lines if kind == Kind.LOGS else 0,
        "body": _input(input_file) if kind == Kind.PREDICT else "",
        "seconds": timeout,
    }
    room = client(url, data)
    given = room.post("/commands", body, key=new_key())
    found = _await(room, given, timeout) if wait else given["commands"]
    if as_json:
        show.json(found)
    else:
        for view in found:
            _tell(view, is_many=bool(to))
    return _code(found, timeout) if wait else 0


def logs(
    device: MaybeDevice = "",
    lines: Annotated[int, typer.Option("-n", help="How many lines.", min=1, max=1000)] = 100,
    to: To = "",
    timeout: Annotated[int, typer.Option(help="Seconds until it is too late.")] = 60,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> int:
    """The newest lines of a device's own log; its owner must allow that (see the guide)."""
    target = [*([device] if device else []), Kind.LOGS.value]
    return command(target, to, "", None, lines, True, timeout, as_json, url, data)


def quarantines(
    to: Annotated[str, typer.Option(help="Only on those that a filter means.")] = "all",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """The bundles that failed on devices and are not tried there again."""
    found = client(url, data).get(f"/quarantines?to={show.quote(to)}")["quarantines"]
    if as_json:
        show.json(found)
        return
    for view in found:
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(view["hardware_classes"].items()))
        name = view["name"] or "not on the shelf"
        typer.echo(f"{view['digest'][:16]}  {name}  {kinds}: {', '.join(view['devices'][:20])}")


def retry(
    device: Device,
    bundle: Annotated[str, typer.Argument(help="model-version, or the digest's beginning.")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Lift a quarantine: a rollout of that bundle to that device alone, tried again."""
    body = {"bundle": bundle}
    found = client(url, data).post(f"/devices/{show.quote(device)}/retry", body)
    show.one(found, as_json=as_json, line=found["id"])


def decommission(
    device: Device,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Take a device out for good: its certificates and key are worth nothing, what is kept goes."""
    if not yes:
        typer.confirm(f"{device}: its key can never come back. Go on?", abort=True, err=True)
    client(url, data).post(f"/devices/{show.quote(device)}/decommission")
    show.talk(f"{device} is decommissioned")


def enrol(
    device: Annotated[str, typer.Argument(help="What the device is to be called.")],
    hours: Annotated[float, typer.Option(help="How long the claim lives.")] = 24,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> None:
    """Make a claim for one device, by its name, and say what to run there."""
    body = {"hours": hours, "listed": [{"device": device, "key_id": ""}]}
    room = client(url, data)
    found = room.post("/claims", body)
    show.one(found, as_json=as_json, line=found["claim"])
    show.talk("on the device, with that line in claim.txt:")
    show.talk(f"edge-agent enrol --fleet {room.url} --device {device} --claim-file claim.txt")


COMMANDS: Final = (
    ("tag", tag),
    ("events", events),
    ("command", command),
    ("logs", logs),
    ("quarantines", quarantines),
    ("retry", retry),
    ("decommission", decommission),
    ("enrol", enrol),
)


def when(seconds: int) -> str:
    """A time as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _split(target: list[str], to: str) -> tuple[str, str]:
    *before, kind = target
    if kind not in set(Kind):
        raise OperatorError(f"{kind!r} is no command", hint=f"one of {', '.join(Kind)}")
    if len(before) != (0 if to else 1):
        raise OperatorError(
            "a command is for one device, or with --to for those that a filter means",
            hint="fleet devices command DEVICE KIND, or KIND --to FILTER",
        )
    return (before[0] if before else ""), kind


def _input(file: Path | None) -> str:
    if file is None:
        raise OperatorError("predict needs an input", hint="--input FILE, or --input - for stdin")
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"cannot read the input {file}: {error}") from None


def _await(room: Client, given: Any, timeout: int) -> list[Any]:
    deadline = time.monotonic() + timeout + 1
    path = f"/commands?of={given['request']}"
    found: list[Any] = given["commands"]
    while any(view["state"] == "open" for view in found) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        found = room.get(path)["commands"]
    return found


def _tell(view: Any, *, is_many: bool) -> None:
    start = f"{view['device']}: " if is_many else ""
    if view["state"] == "done":
        data = view["data"]
        if view["kind"] == Kind.LOGS:
            for line in data.get("lines", []):
                typer.echo(f"{start}{line}")
        elif view["kind"] == Kind.PREDICT:
            typer.echo(f"{start}{data.get('body', '')}")
        else:
            typer.echo(f"{start}{json.dumps(data, indent=None if is_many else 2, sort_keys=True)}")


def _code(found: list[Any], timeout: int) -> int:
    code = 0
    for view in found:
        if view["state"] == "done":
            continue
        if view["state"] in ("open", "expired"):
            where = "online" if view["online"] else "offline"
            seen = f"last seen {when(view['seen_at'])}" if view["seen_at"] else "never seen"
            show.talk(
                f"fleet: error: {view['device']} did not answer {view['kind']} within {timeout} s:"
                f" {where}, {seen}"
            )
            code = code or EXIT_UNREACHABLE
        else:
            show.talk(
                f"fleet: error: {view['device']} {view['state']} {view['kind']}: {view['detail']}"
            )
            code = EXIT_FAILED
    return code
