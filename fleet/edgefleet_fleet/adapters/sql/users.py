"""Users in the store, and the sessions of their pages."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from edgefleet_fleet.adapters.sql.tables import session, user
from edgefleet_fleet.records import User
from edgefleet_fleet.roles import Role


class Users:
    """Names, roles and hashes of tokens; a session belongs to one user and ends with it."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def put(self, found: User) -> None:
        """Keep a user in the place of one of that name, whose sessions end."""
        self._connection.execute(session.delete().where(session.c.user == found.name))
        self._connection.execute(user.delete().where(user.c.name == found.name))
        self._connection.execute(
            user.insert().values(
                name=found.name,
                role=found.role.value,
                token_sha256=found.token_sha256,
                created_at=found.created_at,
                created_by=found.created_by,
                expires_at=found.expires_at,
                revoked=found.revoked,
            )
        )

    def get(self, name: str) -> User | None:
        """The user of a name, revoked or not."""
        return self._one(sa.select(user).where(user.c.name == name))

    def by_token(self, token_sha256: str) -> User | None:
        """The user whose token hashes to this."""
        return self._one(sa.select(user).where(user.c.token_sha256 == token_sha256))

    def list(self) -> tuple[User, ...]:
        """All users, by name."""
        query = sa.select(user).order_by(user.c.name)
        return tuple(_user(row) for row in self._connection.execute(query))

    def revoke(self, name: str) -> bool:
        """End a user and its sessions; whether there was one."""
        self._connection.execute(session.delete().where(session.c.user == name))
        statement = user.update().where(user.c.name == name).values(revoked=True)
        return self._connection.execute(statement).rowcount == 1

    def add_session(self, id_sha256: str, name: str, *, at: int, expires: int) -> None:
        """Keep a session; those that are past their time are dropped."""
        self._connection.execute(session.delete().where(session.c.expires_at <= at))
        self._connection.execute(
            session.insert().values(
                id_sha256=id_sha256, user=name, created_at=at, expires_at=expires
            )
        )

    def by_session(self, id_sha256: str, *, at: int) -> User | None:
        """The user of a session that lasts beyond `at`."""
        return self._one(
            sa.select(user)
            .join(session, session.c.user == user.c.name)
            .where(session.c.id_sha256 == id_sha256, session.c.expires_at > at)
        )

    def drop_session(self, id_sha256: str) -> None:
        """Forget a session."""
        self._connection.execute(session.delete().where(session.c.id_sha256 == id_sha256))

    def _one(self, query: sa.Select[Any]) -> User | None:
        row = self._connection.execute(query).first()
        return _user(row) if row is not None else None


def _user(row: Any) -> User:
    return User(
        name=row.name,
        role=Role(row.role),
        token_sha256=row.token_sha256,
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked=row.revoked,
    )
