"""Opens transactions on SQLite or PostgreSQL, and brings the schema up to date first.

SQLite runs in WAL mode with foreign keys, a busy timeout and `synchronous=FULL` (an acknowledged
message survives a power cut), and every transaction begins IMMEDIATE, so that two writers wait for
each other instead of failing. On PostgreSQL the migrations hold an advisory lock. An address may
name a schema there (`postgresql://…/base?schema=fleet_a`): it is made when it is missing, nothing
outside it is seen, and its locks are its own, so that several fleets may share one data base. A
PostgreSQL that hangs is one that does not answer (`postgresql.py`).
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from edgefleet_contract.errors import Malformed, OperatorError, TransientError
from edgefleet_fleet.adapters.sql.bundles import Bundles
from edgefleet_fleet.adapters.sql.certificates import Certificates
from edgefleet_fleet.adapters.sql.claims import Claims
from edgefleet_fleet.adapters.sql.commands import Commands
from edgefleet_fleet.adapters.sql.devices import Devices
from edgefleet_fleet.adapters.sql.groups import Groups
from edgefleet_fleet.adapters.sql.history import History
from edgefleet_fleet.adapters.sql.ledger import Ledger
from edgefleet_fleet.adapters.sql.made import Made
from edgefleet_fleet.adapters.sql.members import Members
from edgefleet_fleet.adapters.sql.orders import Orders
from edgefleet_fleet.adapters.sql.requests import Requests
from edgefleet_fleet.adapters.sql.rollouts import Rollouts
from edgefleet_fleet.adapters.sql.sealings import Sealings
from edgefleet_fleet.adapters.sql.trust_documents import TrustDocuments
from edgefleet_fleet.adapters.sql.users import Users
from edgefleet_fleet.adapters.sql.webhooks import Webhooks

_MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"
_LOCK: Final = 0x65646765  # "edge", the advisory lock of the migrations
_MIGRATES: Final = threading.Lock()  # what Alembic's scripts see is the process's: one at a time
_SCHEMA: Final = re.compile(r"[a-z0-9_.-]{0,63}")
_RETRY_S: Final = 5
_READS: Final = "edgefleet_reads"  # a transaction that writes nothing

_DECIDES: Final = 0x65646768  # "edgh": the lock of transactions that decide


class Transaction:
    """Everything that the store holds, inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.devices = Devices(connection)
        self.groups = Groups(connection)
        self.commands = Commands(connection)
        self.certificates = Certificates(connection)
        self.claims = Claims(connection)
        self.requests = Requests(connection)
        self.bundles = Bundles(connection)
        self.sealings = Sealings(connection)
        self.rollouts = Rollouts(connection)
        self.members = Members(connection)
        self.orders = Orders(connection)
        self.history = History(connection)
        self.ledger = Ledger(connection)
        self.trust = TrustDocuments(connection)
        self.users = Users(connection)
        self.webhooks = Webhooks(connection)
        self.made = Made(connection)


class Store:
    """A data base of one control room."""

    def __init__(self, url: str) -> None:
        self._engine, self._schema = _engine(url)

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema up to a revision, the newest by default.

        Raises:
            OperatorError: the data base cannot be reached, or is of a newer release.
        """
        config = AlembicConfig()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        try:
            self._make_schema()
            with self._engine.connect() as connection:
                _wait_long(connection)
                if connection.dialect.name == "postgresql":
                    connection.execute(self._lock("pg_advisory_lock", _LOCK))
                    connection.commit()
                config.attributes["connection"] = connection
                try:
                    with _MIGRATES:
                        command.upgrade(config, revision)
                    connection.commit()
                finally:
                    if connection.dialect.name == "postgresql":
                        connection.rollback()
                        connection.execute(self._lock("pg_advisory_unlock", _LOCK))
                        connection.commit()
        except sa.exc.DBAPIError as error:
            raise OperatorError(
                f"the data base cannot be used: {_first_line(error)}",
                hint="look at the room on its disk, and who may write there; of PostgreSQL,"
                " at its address",
            ) from None
        except CommandError as error:
            raise OperatorError(
                f"the data base cannot be brought up to date: {error}",
                hint="it may belong to a newer release of edgefleet",
            ) from None

    @contextlib.contextmanager
    def begin(self, *, decides: bool = False) -> Iterator[Transaction]:
        """A transaction: committed at the end, rolled back by an exception.

        Of those that `decides`, one runs at a time over all processes: what it decides on is what
        the one before it left. On SQLite that holds for every transaction.

        Raises:
            TransientError: the data base did not answer, or was locked for too long.
            Malformed: it cannot hold a value (a text with NUL, a number that is too large).
        """
        try:
            with self._engine.begin() as connection:
                if decides and connection.dialect.name == "postgresql":
                    connection.execute(self._lock("pg_advisory_xact_lock", _DECIDES))
                yield Transaction(connection)
        except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:  # nobody, or no connection
            raise TransientError(
                f"the data base does not answer: {_first_line(error)}", retry_after_s=_RETRY_S
            ) from error
        except sa.exc.DataError as error:
            raise Malformed(f"a value that cannot be kept: {_first_line(error)}") from error

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A connection that sees one moment of the data base, and holds nobody up.

        Raises:
            OperatorError: the data base cannot be read.
        """
        options: dict[str, Any] = {_READS: True}
        if self.dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        try:
            engine = self._engine.execution_options(**options)
            with engine.connect() as connection, connection.begin():
                _wait_long(connection)
                yield connection
        except sa.exc.DBAPIError as error:
            raise OperatorError(f"the data base cannot be read: {_first_line(error)}") from None

    @contextlib.contextmanager
    def loading(self) -> Iterator[sa.Connection]:
        """A connection to fill an empty data base in one transaction.

        Raises:
            OperatorError: what is loaded does not fit.
        """
        try:
            with self._engine.begin() as connection:
                _wait_long(connection)
                yield connection
        except sa.exc.DBAPIError as error:
            raise OperatorError(f"the data base refuses it: {_first_line(error)}") from None

    def fleet(self) -> str:
        """The name of the fleet; empty where none is known yet."""
        with self.begin() as tx:
            return tx.ledger.setting("fleet") or ""

    def revision(self) -> str:
        """The revision of the schema; empty where there is none yet."""
        with self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or ""

    def newest_revision(self) -> str:
        """The revision that this release brings a schema up to."""
        return ScriptDirectory(str(_MIGRATIONS)).get_current_head() or ""

    def set_aside(self, name: str) -> None:
        """Give the schema another name, where the address names one: nobody finds it by the old.

        Raises:
            OperatorError: the data base refuses it.
        """
        if not self._schema:
            return
        try:
            with self._engine.begin() as connection:
                old, new = (_quoted(connection, each) for each in (self._schema, name))
                connection.execute(sa.text(f"ALTER SCHEMA {old} RENAME TO {new}"))
        except sa.exc.DBAPIError as error:
            raise OperatorError(f"the data base refuses it: {_first_line(error)}") from None

    def _make_schema(self) -> None:
        if self._schema:
            with self._engine.begin() as connection:
                name = _quoted(connection, self._schema)
                connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {name}"))

    def _lock(self, function: str, key: int) -> sa.TextClause:
        """One of PostgreSQL's advisory locks, which are the data base's: a schema has its own."""
        if not self._schema:
            return sa.text(f"SELECT {function}({key})")
        text = sa.text(f"SELECT {function}({key}, hashtext(:schema))")
        return text.bindparams(schema=self._schema)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @property
    def engine(self) -> sa.Engine:
        """The engine, for tests that look at the schema."""
        return self._engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    """The address of a SQLite file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def in_schema(url: str, schema: str) -> str:
    """The address of a schema in the PostgreSQL data base that `url` names."""
    named = sa.make_url(url).update_query_dict({"schema": schema})
    return named.render_as_string(hide_password=False)


def _engine(url: str) -> tuple[sa.Engine, str]:
    """The engine, and the schema that the address names; empty for the data base's own."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "postgresql":
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            return _postgresql(parsed)
        if parsed.get_backend_name() != "sqlite":
            raise OperatorError(f"data base {parsed.drivername!r}: sqlite and postgresql are known")
        engine = sa.create_engine(parsed, connect_args={"timeout": 30})
    except sa.exc.ArgumentError:
        raise OperatorError(
            "the data base address is not understood",
            hint="postgresql://user:password@host/database, or leave it out for SQLite",
        ) from None
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"{error.name} is not installed", hint="pip install 'edgefleet[fleet-postgres]'"
        ) from None
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine, ""


def _postgresql(url: sa.URL) -> tuple[sa.Engine, str]:
    schema = url.query.get("schema", "")
    if not isinstance(schema, str) or not _SCHEMA.fullmatch(schema):
        raise OperatorError(f"the data base address names the schema {str(schema)[:80]!r}")
    from edgefleet_fleet.adapters.sql import postgresql

    return postgresql.engine(url.difference_update_query(["schema"]), schema=schema), schema


def _wait_long(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        from edgefleet_fleet.adapters.sql import postgresql

        postgresql.wait_long(connection)


def _quoted(connection: sa.Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: `_begin_immediate` does.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().splitlines()[0][:200]
