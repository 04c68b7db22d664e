"""Events and telemetry in the store: what devices told, once each, telemetry only for a while."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from edgefleet_contract.messages import parse, render
from edgefleet_contract.reported import Event
from edgefleet_contract.telemetry import ModelTelemetry, SystemTelemetry
from edgefleet_fleet.adapters.sql.documents import insert_once
from edgefleet_fleet.adapters.sql.tables import event, telemetry

SYSTEM = "system"
KEPT_EVENTS = 2000


class History:
    """What happened on devices."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add_event(self, message: Event, *, at: int, keep: int = KEPT_EVENTS) -> bool:
        """Keep an event; False where the same one (device, boot, number) is there already.

        Of its device the newest `keep` stay.
        """
        values = {
            "device": message.device,
            "boot_id": message.boot_id,
            "seq": message.seq,
            "ts": message.ts,
            "received_at": at,
            "body": render(message).decode(),
        }
        if not insert_once(self._connection, event, values):
            return False
        mine = event.c.device == message.device
        newest = sa.select(event.c.id).where(mine).order_by(event.c.id.desc())
        oldest_kept = self._connection.execute(newest.offset(keep - 1).limit(1)).scalar()
        if oldest_kept is not None:
            self._connection.execute(event.delete().where(mine, event.c.id < oldest_kept))
        return True

    def events(self, device: str, *, limit: int = 100) -> tuple[Event, ...]:
        """The newest events of a device, newest first."""
        return tuple(found for _, _, found in self.page(device, limit=limit))

    def page(
        self, device: str, *, limit: int, before: int | None = None, since: int = 0
    ) -> tuple[tuple[int, int, Event], ...]:
        """Events of a device, newest first, each with its number and when it came; with `before`
        those below that number, with `since` those that came at that time or later."""
        query = sa.select(event.c.id, event.c.received_at, event.c.body)
        query = query.where(event.c.device == device, event.c.received_at >= since)
        if before is not None:
            query = query.where(event.c.id < before)
        rows = self._connection.execute(query.order_by(event.c.id.desc()).limit(limit))
        return tuple((row.id, row.received_at, parse(Event, row.body.encode())) for row in rows)

    def add_telemetry(self, message: SystemTelemetry | ModelTelemetry, *, keep: int) -> None:
        """Keep a sample, and of its stream the newest `keep` only."""
        stream = SYSTEM if isinstance(message, SystemTelemetry) else f"model/{message.slot}"
        self._connection.execute(
            telemetry.insert().values(
                device=message.device,
                stream=stream,
                ts=message.ts,
                body=render(message).decode(),
            )
        )
        mine = sa.and_(telemetry.c.device == message.device, telemetry.c.stream == stream)
        newest = sa.select(telemetry.c.id).where(mine).order_by(telemetry.c.id.desc())
        oldest_kept = self._connection.execute(newest.offset(keep - 1).limit(1)).scalar()
        if oldest_kept is not None:
            self._connection.execute(telemetry.delete().where(mine, telemetry.c.id < oldest_kept))

    def system(self, device: str, *, limit: int = 1) -> tuple[SystemTelemetry, ...]:
        """The newest samples of the board, oldest first."""
        bodies = self._bodies(device, SYSTEM, limit)
        return tuple(parse(SystemTelemetry, body.encode()) for body in bodies)

    def model(self, device: str, slot: str, *, limit: int = 1) -> tuple[ModelTelemetry, ...]:
        """The newest samples of a slot, oldest first."""
        bodies = self._bodies(device, f"model/{slot}", limit)
        return tuple(parse(ModelTelemetry, body.encode()) for body in bodies)

    def latest_system(self, devices: Collection[str] | None = None) -> dict[str, SystemTelemetry]:
        """The newest sample of each board, or of each of these devices."""
        samples = [
            parse(SystemTelemetry, body.encode())
            for body in self._latest(telemetry.c.stream == SYSTEM, devices)
        ]
        return {sample.device: sample for sample in samples}

    def latest_models(
        self, devices: Collection[str] | None = None
    ) -> dict[tuple[str, str], ModelTelemetry]:
        """The newest sample of each slot of each device, or of each of these."""
        samples = [
            parse(ModelTelemetry, body.encode())
            for body in self._latest(telemetry.c.stream != SYSTEM, devices)
        ]
        return {(sample.device, sample.slot): sample for sample in samples}

    def samples(self, *, after: int, limit: int) -> tuple[tuple[int, str, str], ...]:
        """Samples of all boards and slots behind a number, oldest first: number, stream, JSON."""
        query = sa.select(telemetry.c.id, telemetry.c.stream, telemetry.c.body)
        query = query.where(telemetry.c.id > after).order_by(telemetry.c.id).limit(limit)
        return tuple((row.id, row.stream, row.body) for row in self._connection.execute(query))

    def drop_device(self, device: str) -> None:
        """Drop the telemetry of a device; its events stay as the record."""
        self._connection.execute(telemetry.delete().where(telemetry.c.device == device))

    def _bodies(self, device: str, stream: str, limit: int) -> list[str]:
        mine = sa.and_(telemetry.c.device == device, telemetry.c.stream == stream)
        query = sa.select(telemetry.c.body).where(mine).order_by(telemetry.c.id.desc()).limit(limit)
        return [row.body for row in self._connection.execute(query)][::-1]

    def _latest(self, which: sa.ColumnElement[bool], devices: Collection[str] | None) -> list[str]:
        if devices is not None:
            which = sa.and_(which, telemetry.c.device.in_(devices))
        newest = (
            sa.select(sa.func.max(telemetry.c.id))
            .where(which)
            .group_by(telemetry.c.device, telemetry.c.stream)
        )
        query = sa.select(telemetry.c.body).where(telemetry.c.id.in_(newest))
        return [row.body for row in self._connection.execute(query)]
