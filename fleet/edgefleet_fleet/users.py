"""Users: names with a role and a token; and the sessions of their pages.

A token and a session's id are 32 random bytes, said once. The store has their SHA-256: a plain
hash is right here, since nobody can guess 256 random bits and a slow hash would only make every
request slow (it is for passwords, which people choose; there are none). The user `local-admin` is
whoever can read `operator.token` in the data directory. A revoked user's tokens and pages end at
once; the name may be given again, with another token.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from edgefleet_contract.bundle import is_name
from edgefleet_contract.errors import OperatorError
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.records import User
from edgefleet_fleet.roles import Role
from edgefleet_fleet.work import Actor, Room

LOCAL_ADMIN: Final = "local-admin"
SESSION_S: Final = 12 * 3600
_RESERVED: Final = frozenset({LOCAL_ADMIN, "fleet"})
_MAX_NAME: Final = 64


class Users:
    """The users of one control room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def keep_local_admin(self, token_sha256: str) -> None:
        """Let the token of the data directory be that of `local-admin`."""
        with self._room.work() as work:
            found = work.tx.users.get(LOCAL_ADMIN)
            if found is not None and found.token_sha256 == token_sha256:
                return
            user = User(LOCAL_ADMIN, Role.ADMIN, token_sha256, work.now, "fleet", None, False)
            work.tx.users.put(user)
            work.record("user.add", LOCAL_ADMIN, "admin: the token of the data directory")

    def add(self, name: str, role: Role, *, days: float | None, actor: Actor) -> tuple[User, str]:
        """A new user and its token, which is said here once and never again.

        Raises:
            OperatorError: not a name that a user can have, or not a time.
            Conflict: there is such a user, and it is neither revoked nor expired.
        """
        if not is_name(name) or len(name) > _MAX_NAME or name in _RESERVED:
            raise OperatorError(
                f"a user cannot be called {name[:80]!r}",
                hint=f"[a-z0-9][a-z0-9._-]*, up to {_MAX_NAME} letters, not {LOCAL_ADMIN}",
            )
        if days is not None and not 0 < days <= 3660:
            raise OperatorError("a token lives for up to 3660 days, or until it is revoked")
        token = secrets.token_urlsafe(32)
        with self._room.work(actor) as work:
            known = work.tx.users.get(name)
            if known is not None and known.is_good(work.now):
                raise Conflict(f"there is a user {name!r}", hint=f"fleet users revoke {name}")
            expires = None if days is None else work.now + int(days * 86400)
            user = User(name, role, hash_token(token), work.now, actor.who, expires, False)
            work.tx.users.put(user)
            life = "until revoked" if days is None else f"{days:g} days"
            work.record("user.add", name, f"{role}, {life}")
        return user, token

    def revoke(self, name: str, *, actor: Actor) -> None:
        """End a user's token and pages.

        Raises:
            NotFound: there is no such user.
            Conflict: it is `local-admin`.
        """
        if name == LOCAL_ADMIN:
            raise Conflict(
                f"{LOCAL_ADMIN} is whoever can read operator.token",
                hint="delete that file and start `fleet serve` again: a new one is made",
            )
        with self._room.work(actor) as work:
            if not work.tx.users.revoke(name):
                raise NotFound(f"there is no user {name[:80]!r}")
            work.record("user.revoke", name)

    def list(self) -> tuple[User, ...]:
        """All users by name, revoked ones too."""
        with self._room.store.begin() as tx:
            return tx.users.list()

    def by_token(self, token: str) -> User | None:
        """Whose token this is; None for nobody's, or one that is revoked or expired."""
        with self._room.store.begin() as tx:
            return self._good(tx.users.by_token(hash_token(token)))

    def by_session(self, session: str) -> User | None:
        """Whose page this is; None where the session or its user ended."""
        with self._room.store.begin() as tx:
            return self._good(tx.users.by_session(hash_token(session), at=self.now))

    def begin_session(self, user: User, *, address: str) -> str:
        """A page's session for the next 12 hours: its id, to be kept in a cookie."""
        session = secrets.token_urlsafe(32)
        with self._room.work(Actor(user.name, address)) as work:
            expires = work.now + SESSION_S
            work.tx.users.add_session(hash_token(session), user.name, at=work.now, expires=expires)
            work.record("user.login", user.name)
        return session

    def end_session(self, session: str) -> None:
        """Forget a session."""
        with self._room.store.begin() as tx:
            tx.users.drop_session(hash_token(session))

    @property
    def now(self) -> int:
        """The room's time."""
        return int(self._room.clock())

    def _good(self, user: User | None) -> User | None:
        return user if user is not None and user.is_good(self.now) else None


def hash_token(token: str) -> str:
    """What the data base keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
