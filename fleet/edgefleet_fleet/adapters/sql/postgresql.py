"""Connections to PostgreSQL that do not wait for ever.

A server that is down refuses, which is quick. One that hangs (stopped, its disk stuck, the network
between gone) says nothing, and its kernel may go on to acknowledge what is sent: neither TCP nor a
timeout that the server keeps helps then. So each answer must come within a time that the client
keeps; a connection that let it pass is closed, for what it says later is nobody's. The server gets
a shorter one, so that it stops working for those who gave up, and keeps no lock for them.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final

import psycopg
import sqlalchemy as sa

CONNECT_S: Final = 3
ANSWER_S: Final = 10.0
LONG_S: Final = 600.0
"""For an answer to what may take long: a migration, a piece of a backup."""
_STATEMENT_S: Final = 8
_IDLE_S: Final = 120  # within a transaction: then its locks go
_POOL_S: Final = 5


class Connection(psycopg.Connection[Any]):
    """One whose answers must come within `answer_s` seconds."""

    answer_s: float = ANSWER_S

    def wait(self, gen: Any, *args: Any, **more: Any) -> Any:
        """What the generator gives, as psycopg's; closed where that takes too long.

        Raises:
            OperationalError: it took too long.
        """
        try:
            return super().wait(_within(gen, self.answer_s), *args, **more)
        except _Late:
            self.close()
            raise psycopg.OperationalError(f"no answer in {self.answer_s:g} s") from None


class _Late(Exception):
    """The time is over."""


def _within(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """`gen`, until nothing came for so long; it is resumed ten times a second meanwhile."""
    heard_at = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > seconds:
                raise _Late
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


def engine(url: sa.URL, *, schema: str) -> sa.Engine:
    """The engine of a data base, or of a schema in it."""
    arguments: dict[str, Any] = {}
    if "connect_timeout" not in url.query:
        arguments["connect_timeout"] = CONNECT_S
    if schema:
        arguments["options"] = f'{url.query.get("options", "")} -csearch_path="{schema}"'.strip()
    found = sa.create_engine(url, pool_pre_ping=True, pool_timeout=_POOL_S, connect_args=arguments)
    sa.event.listen(found, "do_connect", _connect)
    sa.event.listen(found, "connect", _prepare)
    return found


def wait_long(connection: sa.Connection) -> None:
    """Let the answers to this connection take long; it leaves the pool for that."""
    connection.detach()
    driver: Any = connection.connection.dbapi_connection
    driver.answer_s = LONG_S
    connection.exec_driver_sql(_limits(0, 0))


def _connect(_dialect: object, _record: object, arguments: Any, named: Any) -> Connection:
    found: Connection = Connection.connect(*arguments, **named)
    return found


def _prepare(connection: Connection, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_limits(_STATEMENT_S, _IDLE_S))
    connection.commit()


def _limits(statement_s: int, idle_s: int) -> str:
    """What the server holds a session to; 0 is without end."""
    return (
        f"SET statement_timeout = {statement_s * 1000};"
        f"SET idle_in_transaction_session_timeout = {idle_s * 1000}"
    )
