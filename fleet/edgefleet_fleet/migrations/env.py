"""What Alembic runs: the store hands its own connection over; there is no other way in."""

from __future__ import annotations

from alembic import context

from edgefleet_fleet.adapters.sql.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
