"""Routes: commands to devices, and what came of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from edgefleet_contract.commands import MAX_COMMAND_LIFE_S, MAX_INPUT_BYTES, MAX_LINES, Kind
from edgefleet_fleet import device_views as shown
from edgefleet_fleet import shapes
from edgefleet_fleet.adapters.sql.store import Transaction
from edgefleet_fleet.api_common import Before, Operator, Reader, Route, TheServices, lower
from edgefleet_fleet.api_paging import ThePages
from edgefleet_fleet.commands import Wish
from edgefleet_fleet.errors import NotFound
from edgefleet_fleet.paging import page_of
from edgefleet_fleet.records import CommandRow
from edgefleet_fleet.roles import COMMANDS, may
from edgefleet_fleet.services import Services
from edgefleet_fleet.shapes import said

router = APIRouter(prefix="/api/v1", route_class=Route)


class CommandBody(BaseModel):
    """What is to be done: by `device`, or by all that `to` means; `seconds` until it is too late.

    `slot` is whom restart-worker, self-test (left out: all) and predict mean, `lines` how many
    logs wants, `body` the input of predict as JSON text.
    """

    kind: Kind
    device: str = ""
    to: str = ""
    slot: str = ""
    lines: int = Field(0, ge=0, le=MAX_LINES)
    body: str = Field("", max_length=MAX_INPUT_BYTES)
    seconds: int = Field(60, ge=1, le=MAX_COMMAND_LIFE_S)


@router.post(
    "/commands", status_code=201, tags=["commands"], responses=said(shapes.GivenCommands, 201)
)
def give_command(
    body: CommandBody, request: Request, services: TheServices, actor: Operator
) -> Any:
    """Ask devices to do something once; they answer later."""
    services.access.actor(request, COMMANDS[body.kind])
    rows = services.commands.give(Wish(**body.model_dump()), actor=actor)
    with services.room.store.begin() as tx:
        return _shown(services, tx, rows, seen=frozenset(Kind))


@router.get("/commands", tags=["commands"], responses=said(shapes.GivenCommands))
def list_commands(request: Request, services: TheServices, _actor: Operator, of: str = "") -> Any:
    """The commands that were given at once (`of`: their `request`), with their answers."""
    seen = _seen(services, request)
    with services.room.store.begin() as tx:
        rows = tx.commands.of_request(of)
        if not rows:
            raise NotFound(f"there is no request {of[:80]!r}")
        return _shown(services, tx, rows, seen=seen)


@router.get("/commands/{command}", tags=["commands"], responses=said(shapes.Command))
def show_command(command: str, request: Request, services: TheServices, _actor: Operator) -> Any:
    """One command, with its answer."""
    seen = _seen(services, request)
    with services.room.store.begin() as tx:
        row = tx.commands.get(command)
        if row is None:
            raise NotFound(f"there is no command {command[:80]!r}")
        return _shown(services, tx, (row,), seen=seen)["commands"][0]


@router.get("/devices/{device}/commands", tags=["commands"], responses=said(shapes.Commands))
def list_device_commands(
    device: str,
    services: TheServices,
    _actor: Reader,
    pages: ThePages,
    before: Before = None,
) -> Any:
    """What a device was asked, newest first, without what it brought back."""
    cursor = pages.before("commands")
    with services.room.store.begin() as tx:
        found = tx.devices.get(device)
        if found is None or found.is_forgotten:
            raise NotFound(f"there is no device {device!r}", hint="fleet devices list")
        rows = tx.commands.of_device(device, limit=pages.limit + 1, before=lower(before, cursor))
        page = page_of(rows, lambda row: (row.seq,), limit=pages.limit)
        view = _shown(services, tx, page.rows, seen=frozenset())
    return pages.answer("commands", page, view["commands"])


def _seen(services: Services, request: Request) -> frozenset[Kind]:
    """The kinds whose answers a user may see: those that they may send."""
    role = services.access.user(request).role
    return frozenset(kind for kind, needed in COMMANDS.items() if may(role, needed))


def _shown(
    services: Services, tx: Transaction, rows: tuple[CommandRow, ...], *, seen: frozenset[Kind]
) -> dict[str, Any]:
    now = int(services.room.clock())
    return {
        "request": rows[0].request if rows else "",
        "commands": [
            shown.command(
                row, now=now, device=tx.devices.get(row.device), with_data=row.kind in seen
            )
            for row in rows
        ],
    }
