"""Every row of a data base as lines of JSON, and back: the same for SQLite and PostgreSQL.

Tables are read as they are in the data base, not as this release knows them, and loaded under the
revision that they were read under; the newer migrations then run over them. So a dump of an older
release loads, and one of SQLite loads into PostgreSQL. Bytes are `{"base64": …}`; all other values
are JSON's own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import sqlalchemy as sa

from edgefleet_contract.errors import OperatorError

_VERSIONS: Final = "alembic_version"
_AT_ONCE: Final = 500


def dump(connection: sa.Connection) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each table's name and its rows, a line each, in an order in which they can be loaded.

    The rows of a table are to be read before the next table is asked for. The caller holds one
    read transaction over all of them.
    """
    for table in _tables(connection):
        yield table.name, _lines(connection, table)


def load(connection: sa.Connection, name: str, lines: Iterable[bytes]) -> int:
    """Fill an empty table with lines that `dump` gave; how many rows.

    Raises:
        OperatorError: there is no such table, or it has rows, or a line is not a row of it.
    """
    known = {table.name: table for table in _tables(connection)}
    if name not in known:
        raise OperatorError(f"the data base has no table {name[:64]!r}")
    table = known[name]
    if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
        raise OperatorError(
            f"the data base is not empty: table {name!r} has rows",
            hint="name an empty data base, or a new data directory",
        )
    total, rows = 0, []
    for line in lines:
        rows.append(_row(table, line))
        if len(rows) == _AT_ONCE:
            total += _insert(connection, table, rows)
            rows = []
    return total + _insert(connection, table, rows)


def count_on(connection: sa.Connection) -> None:
    """Let columns that number themselves go on behind what was loaded (PostgreSQL)."""
    if connection.dialect.name != "postgresql":
        return  # SQLite looks at the rows
    for table in _tables(connection):
        for column in table.primary_key.columns:
            sequence = connection.execute(
                sa.select(sa.func.pg_get_serial_sequence(table.name, column.name))
            ).scalar()
            if sequence is not None:
                highest = connection.execute(sa.select(sa.func.max(column))).scalar()
                if highest is not None:
                    connection.execute(sa.select(sa.func.setval(sequence, highest)))


def _tables(connection: sa.Connection) -> list[sa.Table]:
    found = sa.MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != _VERSIONS]


def _lines(connection: sa.Connection, table: sa.Table) -> Iterator[bytes]:
    order = list(table.primary_key.columns)
    for row in connection.execute(sa.select(table).order_by(*order)).mappings():
        values = {key: _to_json(value) for key, value in row.items()}
        yield json.dumps(values, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> int:
    if rows:
        connection.execute(table.insert(), rows)
    return len(rows)


def _row(table: sa.Table, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict) or set(value) != set(table.columns.keys()):
        raise OperatorError(f"table {table.name!r}: a line is not a row of it")
    binary = {c.name for c in table.columns if isinstance(c.type, sa.LargeBinary)}
    return {key: _to_bytes(found) if key in binary else found for key, found in value.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    return value


def _to_bytes(value: Any) -> bytes | None:
    return None if value is None else base64.b64decode(value["base64"])
