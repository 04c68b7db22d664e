"""The history of devices and their telemetry in the store, so many of each kind."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from edgefleet_contract import codec
from edgefleet_contract.messages import parse, render
from edgefleet_contract.reported import Event
from edgefleet_contract.telemetry import ModelTelemetry, SystemTelemetry
from edgefleet_fleet.adapters.sql.documents import insert_once, load
from edgefleet_fleet.adapters.sql.tables import event, telemetry
from edgefleet_fleet.happenings import Entry, Happening, HistoryKind, once_more

SYSTEM = "system"
KEPT_EVENTS = 2000


def _body(happened: Happening) -> str:
    return json.dumps(codec.encode(happened))


def _entry(row: Any) -> Entry:
    kind = HistoryKind(row.kind)
    told: Event | Happening
    if kind is HistoryKind.INSTALL:
        told = parse(Event, row.body.encode())
    else:
        told = load(Happening, json.loads(row.body))
    return Entry(row.id, kind, row.ts, row.received_at, told)


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
            "kind": HistoryKind.INSTALL.value,
            "boot_id": message.boot_id,
            "seq": message.seq,
            "ts": message.ts,
            "received_at": at,
            "body": render(message).decode(),
        }
        if not insert_once(self._connection, event, values):
            return False
        self._keep(message.device, HistoryKind.INSTALL, keep)
        return True

    def add(
        self,
        device: str,
        kind: HistoryKind,
        happened: Happening,
        *,
        at: int,
        keep: int = KEPT_EVENTS,
    ) -> None:
        """Keep something else that happened to a device; of each kind the newest `keep` stay.

        What a device's link does within an hour is one entry (`happenings.once_more`).
        """
        if kind is HistoryKind.LINK and self._once_more(device, happened, at):
            return
        values = {"device": device, "kind": kind.value, "ts": at, "received_at": at}
        self._connection.execute(event.insert().values(body=_body(happened), **values))
        self._keep(device, kind, keep)

    def _once_more(self, device: str, happened: Happening, at: int) -> bool:
        newest = self.page(device, limit=1, kinds=(HistoryKind.LINK,))
        last = newest[0] if newest else None
        if last is None or not isinstance(last.told, Happening):
            return False
        both = once_more(last.told, last.received_at, happened, at)
        if both is not None:
            here = event.c.id == last.number
            self._connection.execute(event.update().where(here).values(body=_body(both)))
        return both is not None

    def _keep(self, device: str, kind: HistoryKind, keep: int) -> None:
        mine = sa.and_(event.c.device == device, event.c.kind == kind.value)
        newest = sa.select(event.c.id).where(mine).order_by(event.c.id.desc())
        oldest_kept = self._connection.execute(newest.offset(keep - 1).limit(1)).scalar()
        if oldest_kept is not None:
            self._connection.execute(event.delete().where(mine, event.c.id < oldest_kept))

    def events(self, device: str, *, limit: int = 100) -> tuple[Event, ...]:
        """The newest steps of installs of a device, newest first."""
        found = (
            entry.told for entry in self.page(device, limit=limit, kinds=(HistoryKind.INSTALL,))
        )
        return tuple(told for told in found if isinstance(told, Event))

    def page(
        self,
        device: str,
        *,
        limit: int,
        before: int | None = None,
        since: int = 0,
        kinds: Collection[HistoryKind] = (),
    ) -> tuple[Entry, ...]:
        """The history of a device, newest first; with `before` below that number, with `since`
        what came at that time or later, with `kinds` of these alone."""
        query = sa.select(event).where(event.c.device == device, event.c.received_at >= since)
        if kinds:
            query = query.where(event.c.kind.in_([kind.value for kind in kinds]))
        if before is not None:
            query = query.where(event.c.id < before)
        rows = self._connection.execute(query.order_by(event.c.id.desc()).limit(limit))
        return tuple(_entry(row) for row in rows)

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
