"""Orders in the store: every one that was ever signed, by device and number."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from edgefleet_contract import codec
from edgefleet_fleet.adapters.sql.documents import load_targets
from edgefleet_fleet.adapters.sql.tables import device_order as table
from edgefleet_fleet.records import OrderRow


class Orders:
    """The orders; the one with the highest number is what a device should follow."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, order: OrderRow) -> None:
        """Keep a new order."""
        self._connection.execute(
            table.insert().values(
                device=order.device,
                seq=order.seq,
                issued=order.issued,
                expires=order.expires,
                rollout=order.rollout,
                asks=list(order.asks),
                targets=[codec.encode(target) for target in order.targets],
                envelope=order.envelope,
            )
        )

    def get(self, device: str, seq: int) -> OrderRow | None:
        """One order."""
        query = sa.select(table).where(table.c.device == device, table.c.seq == seq)
        row = self._connection.execute(query).first()
        return _order(row) if row is not None else None

    def newest(self, device: str) -> OrderRow | None:
        """What a device should follow now."""
        query = sa.select(table).where(table.c.device == device).order_by(table.c.seq.desc())
        row = self._connection.execute(query.limit(1)).first()
        return _order(row) if row is not None else None

    def all_newest(self, devices: Collection[str] | None = None) -> tuple[OrderRow, ...]:
        """What each device, or each of these, should follow now, by device."""
        newest = sa.select(table.c.device, sa.func.max(table.c.seq).label("seq"))
        if devices is not None:
            newest = newest.where(table.c.device.in_(devices))
        highest = newest.group_by(table.c.device).subquery()
        here = sa.and_(table.c.device == highest.c.device, table.c.seq == highest.c.seq)
        query = sa.select(table).join(highest, here).order_by(table.c.device)
        return tuple(_order(row) for row in self._connection.execute(query))

    def drop_device(self, device: str) -> None:
        """Forget the orders of a device, and with them the keys that were sealed for it."""
        self._connection.execute(table.delete().where(table.c.device == device))

    def set_asks(self, device: str, seq: int, asks: tuple[str, ...]) -> None:
        """Let an order stand for more rollouts that ask for the same."""
        here = sa.and_(table.c.device == device, table.c.seq == seq)
        self._connection.execute(table.update().where(here).values(asks=list(asks)))


def _order(row: Any) -> OrderRow:
    return OrderRow(
        device=row.device,
        seq=row.seq,
        issued=row.issued,
        expires=row.expires,
        rollout=row.rollout,
        asks=tuple(row.asks),
        targets=load_targets(row.targets),
        envelope=bytes(row.envelope),
    )
