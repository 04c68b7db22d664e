"""Devices in the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from edgefleet_contract.capabilities import Capabilities
from edgefleet_contract.messages import render
from edgefleet_contract.reported import Presence, Reported
from edgefleet_fleet.adapters.sql.tables import device as table
from edgefleet_fleet.adapters.sql.tables import device_tag as tag
from edgefleet_fleet.records import Device, Standing


class Devices:
    """The devices that ever enrolled; a forgotten one keeps its row, so no number is used twice."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, device: str) -> Device | None:
        """The device of this name."""
        row = self._connection.execute(sa.select(table).where(table.c.id == device)).first()
        return _device(row, self._tags([device]).get(device)) if row is not None else None

    def list(self, *, forgotten: bool = False, revoked: bool = False) -> tuple[Device, ...]:
        """The devices in service by name, and those that are not where they are asked for."""
        query = _in_service(sa.select(table), revoked=revoked, forgotten=forgotten)
        query = query.order_by(table.c.id)
        tags = self._tags()
        return tuple(_device(row, tags.get(row.id)) for row in self._connection.execute(query))

    def page(self, *, limit: int, after: str = "", revoked: bool = False) -> tuple[Device, ...]:
        """The devices behind a name, by name: so many at most."""
        query = _in_service(sa.select(table), revoked=revoked).where(table.c.id > after)
        rows = self._connection.execute(query.order_by(table.c.id).limit(limit)).all()
        return self._with_tags(rows)

    def heard_last(self, limit: int) -> tuple[Device, ...]:
        """The devices in service that were heard last, the newest first."""
        query = _in_service(sa.select(table)).order_by(table.c.seen_at.desc(), table.c.id)
        return self._with_tags(self._connection.execute(query.limit(limit)).all())

    def count(self, *, revoked: bool = False) -> int:
        """How many are in service."""
        query = _in_service(sa.select(sa.func.count()).select_from(table), revoked=revoked)
        return int(self._connection.execute(query).scalar_one())

    def online(self, devices: Collection[str] | None = None) -> frozenset[str]:
        """Those that are connected, or those of these that are."""
        query = sa.select(table.c.id).where(table.c.online)
        if devices is not None:
            query = query.where(table.c.id.in_(devices))
        return frozenset(row.id for row in self._connection.execute(query))

    def standings(self) -> Iterator[Standing]:
        """How each device in service stands, by name."""
        columns = (table.c.id, table.c.online, table.c.seen_at, table.c.enrolled_at)
        query = _in_service(sa.select(*columns, table.c.reported)).order_by(table.c.id)
        for row in self._connection.execute(query):
            told = json.loads(row.reported) if row.reported else {}
            yield Standing(
                *row[:4],
                phase=told.get("phase", ""),
                reason=told.get("reason", ""),
                detail=told.get("detail", ""),
                at=told.get("ts", 0),
                quarantined=tuple(told.get("quarantined", ())),
                models=tuple(f"{m['model']}@{m['version']}" for m in told.get("models", ())),
            )

    def _with_tags(self, rows: Sequence[Any]) -> tuple[Device, ...]:
        tags = self._tags([row.id for row in rows])
        return tuple(_device(row, tags.get(row.id)) for row in rows)

    def set_tags(self, device: str, tags: Mapping[str, str]) -> None:
        """Let a device have these tags, and no other."""
        self._connection.execute(tag.delete().where(tag.c.device == device))
        rows = [{"device": device, "key": key, "value": value} for key, value in tags.items()]
        if rows:
            self._connection.execute(tag.insert(), rows)

    def _tags(self, devices: Collection[str] | None = None) -> dict[str, dict[str, str]]:
        query = sa.select(tag).order_by(tag.c.device, tag.c.key)
        if devices is not None:
            query = query.where(tag.c.device.in_(devices))
        found: dict[str, dict[str, str]] = {}
        for row in self._connection.execute(query):
            found.setdefault(row.device, {})[row.key] = row.value
        return found

    def enrol(
        self,
        device: str,
        *,
        key_id: str,
        serial: str,
        expires: int,
        at: int,
        capabilities: Capabilities,
        seal_key: str = "",
    ) -> None:
        """Add a device, or give a known one its new certificate."""
        values = {
            "key_id": key_id,
            "certificate_serial": serial,
            "certificate_expires": expires,
            "enrolled_at": at,
            "revoked_at": None,
            "hw": capabilities.hw,
            "arch": capabilities.arch,
            "board": capabilities.board,
            "seal_key": seal_key,
        }
        if self.get(device) is not None:
            self._update(device, values)
            return
        blank = {"online": False, "boot_id": "", "agent": "", "seen_at": 0, "last_seq": 0}
        self._connection.execute(table.insert().values(id=device, **values, **blank))

    def forget(self, device: str) -> None:
        """Let the name be enrolled again by any key; what it reported is dropped."""
        gone = {"key_id": "", "seal_key": "", "online": False, "reported": None, "revoked_at": None}
        self._update(device, gone)
        self.set_tags(device, {})

    def revoke(self, device: str, *, at: int) -> None:
        """Take a device out of service; its row, its name and what it said stay."""
        self._update(device, {"revoked_at": at, "online": False})

    def set_certificate(self, device: str, *, serial: str, expires: int) -> None:
        """Note the certificate that a device uses from now on."""
        self._update(device, {"certificate_serial": serial, "certificate_expires": expires})

    def set_presence(self, presence: Presence) -> None:
        """Note that a device came or went."""
        values: dict[str, Any] = {"online": presence.online, "agent": presence.agent}
        if presence.online:
            values["boot_id"] = presence.boot_id
        self._update(presence.device, values)

    def set_reported(self, reported: Reported) -> None:
        """Keep the newest full state of a device."""
        able = reported.capabilities
        values = {"reported": render(reported).decode(), "agent": reported.agent}
        self._update(
            reported.device, values | {"hw": able.hw, "arch": able.arch, "board": able.board}
        )

    def touch(self, device: str, *, at: int) -> None:
        """Note a sign of life."""
        self._update(device, {"seen_at": at})

    def set_last_seq(self, device: str, seq: int) -> None:
        """Note the highest order number that was ever used for a device."""
        self._update(device, {"last_seq": seq})

    def set_last_command(self, device: str, seq: int) -> None:
        """Note the highest number that was ever used for a command to a device."""
        self._update(device, {"last_command": seq})

    def _update(self, device: str, values: dict[str, Any]) -> None:
        self._connection.execute(table.update().where(table.c.id == device).values(**values))


Q = TypeVar("Q", bound="sa.Select[Any]")


def _in_service(query: Q, *, revoked: bool = False, forgotten: bool = False) -> Q:
    if not forgotten:
        query = query.where(table.c.key_id != "")
    return query if revoked else query.where(table.c.revoked_at.is_(None))


def _device(row: Any, tags: dict[str, str] | None) -> Device:
    return Device(
        id=row.id,
        key_id=row.key_id,
        certificate_serial=row.certificate_serial,
        certificate_expires=row.certificate_expires,
        enrolled_at=row.enrolled_at,
        online=row.online,
        boot_id=row.boot_id,
        agent=row.agent,
        seen_at=row.seen_at,
        last_seq=row.last_seq,
        hw=row.hw,
        arch=row.arch,
        board=row.board,
        told=row.reported or "",
        revoked_at=row.revoked_at,
        seal_key=row.seal_key,
        last_command=row.last_command,
        tags=tags or {},
    )
