"""Webhooks in the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import webhook
from edgefleet_fleet.webhooks import Webhook


class Webhooks:
    """Addresses, and how far each is."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add(self, found: Webhook) -> None:
        """Keep a new one."""
        self._connection.execute(webhook.insert().values(_values(found)))

    def get(self, name: str) -> Webhook | None:
        """The one of a name."""
        row = self._connection.execute(sa.select(webhook).where(webhook.c.name == name)).first()
        return _webhook(row) if row is not None else None

    def list(self) -> tuple[Webhook, ...]:
        """All, by name."""
        query = sa.select(webhook).order_by(webhook.c.name)
        return tuple(_webhook(row) for row in self._connection.execute(query))

    def due(self, now: int) -> tuple[Webhook, ...]:
        """Those that may be tried now."""
        query = sa.select(webhook).where(webhook.c.next_at <= now, webhook.c.stopped.is_(False))
        return tuple(_webhook(row) for row in self._connection.execute(query))

    def keep(self, old: Webhook, new: Webhook) -> bool:
        """Keep how far one is, unless somebody else did since `old` was read; whether it was."""
        mine = (
            webhook.c.name == old.name,
            webhook.c.created_at == old.created_at,
            webhook.c.cursor == old.cursor,
            webhook.c.attempts == old.attempts,
            webhook.c.next_at == old.next_at,
        )
        statement = webhook.update().where(*mine).values(_values(new))
        return self._connection.execute(statement).rowcount == 1

    def remove(self, name: str) -> bool:
        """Forget one; whether there was one."""
        statement = webhook.delete().where(webhook.c.name == name)
        return self._connection.execute(statement).rowcount == 1


def _values(found: Webhook) -> dict[str, Any]:
    return {**asdict(found), "events": list(found.events)}


def _webhook(row: Any) -> Webhook:
    return Webhook(**{**row._asdict(), "events": tuple(row.events)})
