"""Requests to enrol that an operator is asked about, in the store: one for each name."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import claim
from edgefleet_fleet.adapters.sql.tables import enrolment_request as table
from edgefleet_fleet.records import EnrolmentRequest, RequestState


class Requests:
    """Those that were made; a request ends with its claim, and its row goes some time later."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, device: str) -> EnrolmentRequest | None:
        """The request of a name, whether its claim still holds or not."""
        row = self._connection.execute(sa.select(table).where(table.c.device == device)).first()
        return _request(row) if row is not None else None

    def open(self, *, at: int) -> tuple[EnrolmentRequest, ...]:
        """Those that wait or wait to be fetched, and whose claim holds; the oldest first."""
        query = (
            sa.select(table)
            .join(claim, claim.c.id == table.c.claim)
            .where(
                table.c.state.in_([state.value for state in RequestState if state.is_open]),
                claim.c.revoked.is_(False),
                claim.c.expires_at > at,
            )
            .order_by(table.c.created_at, table.c.device)
        )
        return tuple(_request(row) for row in self._connection.execute(query))

    def put(self, found: EnrolmentRequest, *, at: int) -> None:
        """Keep a request in the place of one of that name; those whose claim ended are dropped."""
        ended = sa.select(claim.c.id).where(claim.c.revoked.is_(True) | (claim.c.expires_at <= at))
        self._connection.execute(table.delete().where(table.c.claim.in_(ended)))
        self.drop(found.device)
        self._connection.execute(
            table.insert().values(
                device=found.device,
                key_id=found.key_id,
                claim=found.claim,
                state=found.state.value,
                hw=found.hw,
                board=found.board,
                address=found.address,
                created_at=found.created_at,
            )
        )

    def set_state(self, device: str, state: RequestState) -> None:
        """Note how far a request is."""
        statement = table.update().where(table.c.device == device).values(state=state.value)
        self._connection.execute(statement)

    def drop(self, device: str) -> None:
        """Forget the request of a name."""
        self._connection.execute(table.delete().where(table.c.device == device))


def _request(row: Any) -> EnrolmentRequest:
    return EnrolmentRequest(
        device=row.device,
        key_id=row.key_id,
        claim=row.claim,
        state=RequestState(row.state),
        hw=row.hw,
        board=row.board,
        address=row.address,
        created_at=row.created_at,
    )
