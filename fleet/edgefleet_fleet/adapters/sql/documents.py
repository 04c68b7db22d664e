"""JSON columns to values of the contract and back: targets and policies of orders."""

from __future__ import annotations

from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from edgefleet_contract import codec
from edgefleet_contract.orders import Target

T = TypeVar("T")


def load_targets(value: Any) -> tuple[Target, ...]:
    """The targets in a JSON column."""
    return tuple(load(Target, item) for item in value)


def load(kind: type[T], value: Any) -> T:
    """A dataclass of the contract in a JSON column; fields of newer releases are ignored."""
    return codec.decode(kind, value, what="stored document", unknown=True)


def insert_once(connection: sa.Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row unless one with its key is there; whether it was inserted."""
    if connection.dialect.name == "postgresql":
        statement: Any = postgresql.insert(table).values(values).on_conflict_do_nothing()
    else:
        statement = sqlite.insert(table).values(values).on_conflict_do_nothing()
    # Not by the row count, which drivers do not keep for an INSERT.
    key = next(iter(table.primary_key.columns))
    return connection.execute(statement.returning(key)).first() is not None
