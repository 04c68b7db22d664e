"""`fleet doctor`: looks at a control room from here, then lets it look at itself."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from edgefleet_contract import __version__
from edgefleet_contract.errors import EdgefleetError, OperatorError, TransientError
from edgefleet_contract.errors import Unverified as UnverifiedError
from edgefleet_fleet import cli_show as show
from edgefleet_fleet import doctor
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client, data_dir
from edgefleet_fleet.client import Client
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.doctor import DeskFacts, Finding, Status

_MARKS = {Status.OK: "ok  ", Status.WARN: "warn", Status.FAIL: "FAIL"}


def doctor_command(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = None) -> int:
    """Look at broker, data base, shelf, keys and clocks, and say what to do.

    The exit code is 1 where something failed, else 0.
    """
    desk, answer = _ask(url, data)
    findings = doctor.judge_desk(desk)
    own = tuple(Finding(**row | {"status": Status(row["status"])}) for row in answer["findings"])
    findings += own
    if as_json:
        show.json(
            {
                "url": desk.url,
                "fleet": answer.get("fleet", ""),
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            typer.echo(f"{_MARKS[finding.status]}  {finding.name:22} {finding.found}")
            if finding.do:
                typer.echo(f"      {'':22} do: {finding.do}")
    return doctor.exit_code(findings)


def _ask(url: str, data: Path | None) -> tuple[DeskFacts, Any]:
    """What is seen from here, and what the service says of itself."""
    desk = DeskFacts(url, _is_loopback(url), own_version=__version__)
    nothing: dict[str, Any] = {"findings": []}
    try:
        room, refused = client(url, data), ""
    except OperatorError as error:  # no token here: what can be seen without one is still seen
        named, own = os.environ.get("FLEET_CA"), DataDir(data_dir(data)).keys / "ca.pem"
        ca = Path(named) if named else own if own.is_file() else None
        room, refused = Client(url, "", ca=ca), error.message
    try:
        health, skew_s = _health(room)
    except UnverifiedError as error:
        return dataclasses.replace(desk, unverified=error.message), nothing
    except EdgefleetError as error:
        return dataclasses.replace(desk, unreachable=error.message), nothing
    desk = dataclasses.replace(
        desk, skew_s=skew_s, service_version=str(health.get("version", "unknown"))
    )
    if refused:
        return dataclasses.replace(desk, refused=refused), nothing
    try:
        answer = room.get("/doctor")
    except TransientError as error:  # the data base that knows the token does not answer
        return dataclasses.replace(desk, refused=f"cannot be looked at: {error.message}"), nothing
    except EdgefleetError as error:
        return dataclasses.replace(desk, refused=error.message), nothing
    who = answer["who"]
    return dataclasses.replace(desk, who=who["name"], role=who["role"]), answer


def _health(room: Client) -> tuple[Any, float | None]:
    """What `/healthz` says, and how far the clock of the service is ahead."""
    asked = time.time()
    answer = room.health()
    middle = (asked + time.time()) / 2
    try:
        body = answer.json()
    except ValueError:
        raise OperatorError(f"what answers at {room.url} is no control room") from None
    said = answer.headers.get("Date")
    if said is None:
        return body, None
    try:
        date = parsedate_to_datetime(said)
    except ValueError:
        return body, None
    # the header has whole seconds: its time is up to a second before the answer
    ahead = date.astimezone(UTC) - datetime.fromtimestamp(middle, UTC)
    return body, ahead.total_seconds() + 0.5


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
