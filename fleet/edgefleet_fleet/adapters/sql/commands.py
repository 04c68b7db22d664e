"""Commands in the store: what was asked of devices, and what they answered; the newest of each."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from edgefleet_contract.commands import CommandResult, Kind, Outcome
from edgefleet_contract.messages import parse, render
from edgefleet_fleet.adapters.sql.tables import command as table
from edgefleet_fleet.records import CommandRow


class Commands:
    """The commands that were given."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, row: CommandRow, *, keep: int) -> None:
        """Keep a new command, and of its device the newest `keep` only."""
        self._connection.execute(
            table.insert().values(
                id=row.id,
                request=row.request,
                device=row.device,
                seq=row.seq,
                kind=row.kind.value,
                slot=row.slot,
                issued=row.issued,
                expires=row.expires,
                created_by=row.created_by,
                envelope=row.envelope,
            )
        )
        newest = sa.select(table.c.seq).where(table.c.device == row.device)
        oldest_kept = self._connection.execute(
            newest.order_by(table.c.seq.desc()).offset(keep - 1).limit(1)
        ).scalar()
        if oldest_kept is not None:
            mine = sa.and_(table.c.device == row.device, table.c.seq < oldest_kept)
            self._connection.execute(table.delete().where(mine))

    def get(self, command: str) -> CommandRow | None:
        """The command of this id."""
        row = self._connection.execute(sa.select(table).where(table.c.id == command)).first()
        return _command(row) if row is not None else None

    def of_request(self, request: str) -> tuple[CommandRow, ...]:
        """The commands that were given at once, by device."""
        query = sa.select(table).where(table.c.request == request).order_by(table.c.device)
        return tuple(_command(row) for row in self._connection.execute(query))

    def of_device(
        self, device: str, *, limit: int, before: int | None = None
    ) -> tuple[CommandRow, ...]:
        """The newest commands of a device, newest first; with `before`, those below that number."""
        query = sa.select(table).where(table.c.device == device)
        if before is not None:
            query = query.where(table.c.seq < before)
        rows = self._connection.execute(query.order_by(table.c.seq.desc()).limit(limit))
        return tuple(_command(row) for row in rows)

    def open(self, *, at: int, device: str | None = None) -> tuple[CommandRow, ...]:
        """Those without an answer that have not ended, by device and number."""
        query = sa.select(table).where(table.c.outcome.is_(None), table.c.expires >= at)
        if device is not None:
            query = query.where(table.c.device == device)
        rows = self._connection.execute(query.order_by(table.c.device, table.c.seq))
        return tuple(_command(row) for row in rows)

    def answer(self, result: CommandResult, *, at: int) -> bool:
        """Keep the answer of a command; False where it has one, or is not that device's."""
        mine = sa.and_(
            table.c.id == result.id,
            table.c.device == result.device,
            table.c.kind == result.kind.value,
            table.c.outcome.is_(None),
        )
        values = {
            "outcome": result.outcome.value,
            "answered_at": at,
            "result": render(result).decode(),
        }
        return self._connection.execute(table.update().where(mine).values(values)).rowcount == 1

    def drop_device(self, device: str) -> None:
        """Forget the commands of a device."""
        self._connection.execute(table.delete().where(table.c.device == device))


def _command(row: Any) -> CommandRow:
    return CommandRow(
        id=row.id,
        request=row.request,
        device=row.device,
        seq=row.seq,
        kind=Kind(row.kind),
        slot=row.slot,
        issued=row.issued,
        expires=row.expires,
        created_by=row.created_by,
        envelope=bytes(row.envelope),
        outcome=Outcome(row.outcome) if row.outcome else None,
        answered_at=row.answered_at,
        result=parse(CommandResult, row.result.encode()) if row.result else None,
    )
