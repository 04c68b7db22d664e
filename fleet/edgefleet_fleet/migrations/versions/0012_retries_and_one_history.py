"""Tries of devices that could not fetch a model; events of more kinds than steps of an install."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the columns; every event that there is, is a step of an install."""
    for name, kind in (
        ("tries", sa.Integer()),
        ("retry_at", sa.BigInteger()),
        ("answered_seq", sa.BigInteger()),
    ):
        op.add_column("rollout_device", sa.Column(name, kind, nullable=False, server_default="0"))
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("kind", sa.String(length=16), nullable=False, server_default="install")
        )
        batch_op.alter_column("boot_id", existing_type=sa.String(length=128), nullable=True)
        batch_op.alter_column("seq", existing_type=sa.BigInteger(), nullable=True)
        batch_op.create_index("ix_event_device_kind_id", ["device", "kind", "id"])


def downgrade() -> None:
    """Go back; other events than steps of installs are forgotten, who waited is undelivered."""
    op.execute(sa.text("DELETE FROM event WHERE kind != 'install'"))
    with op.batch_alter_table("event", schema=None) as batch_op:
        batch_op.drop_index("ix_event_device_kind_id")
        batch_op.alter_column("seq", existing_type=sa.BigInteger(), nullable=False)
        batch_op.alter_column("boot_id", existing_type=sa.String(length=128), nullable=False)
        batch_op.drop_column("kind")
    op.execute(
        sa.text("UPDATE rollout_device SET outcome = 'undelivered' WHERE outcome = 'retrying'")
    )
    _forget_retries(op.get_bind())
    # Not in a batch, which makes the table anew: what it refers to would be asked for again.
    for name in ("tries", "retry_at", "answered_seq"):
        op.drop_column("rollout_device", name)


def _forget_retries(connection: sa.Connection) -> None:
    """Older releases refuse plans and counts with words that they do not know."""
    rollout = sa.table(
        "rollout", sa.column("id"), sa.column("plan", sa.JSON()), sa.column("progress", sa.JSON())
    )
    for row in connection.execute(sa.select(rollout)).all():
        plan = {name: value for name, value in row.plan.items() if name != "retries"}
        progress = dict(row.progress)
        for counts in ("tally", "excused"):
            if counts in progress:
                progress[counts] = _without_retrying(progress[counts])
        values = {"plan": plan, "progress": progress}
        connection.execute(rollout.update().where(rollout.c.id == row.id).values(values))


def _without_retrying(counts: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for cell, count in counts.items():
        name = cell.replace("|retrying|", "|undelivered|")
        found[name] = found.get(name, 0) + count
    return found
