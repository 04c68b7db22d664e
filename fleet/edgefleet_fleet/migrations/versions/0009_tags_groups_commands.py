"""Tags of devices, groups, commands; and the filters of rollouts in the words of the new language.

Values that were written without quotes are quoted where the new language needs it.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_PLAIN = re.compile(r"[^\s\"=<>!(),|]+")


def upgrade() -> None:
    """Make the tables; no filter means other devices than before."""
    op.create_table(
        "device_tag",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_device_tag_device")),
        sa.PrimaryKeyConstraint("device", "key", name=op.f("pk_device_tag")),
    )
    op.create_table(
        "device_group",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("about", sa.String(length=256), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_device_group")),
    )
    op.create_table(
        "command",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("slot", sa.String(length=64), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_command_device")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_command")),
    )
    op.create_index(op.f("ix_command_request"), "command", ["request"])
    op.create_index("uq_command_device_seq", "command", ["device", "seq"], unique=True)
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("last_command", sa.BigInteger(), nullable=False, server_default="0")
        )
    op.create_index("ix_event_device_id", "event", ["device", "id"])
    _rewrite_filters()


def downgrade() -> None:
    """Go back; filters of rollouts stay in the new words, which older releases may refuse."""
    op.drop_index("ix_event_device_id", "event")
    # Not in a batch, which makes the table anew: what refers to it would refuse that.
    op.drop_column("device", "last_command")
    op.drop_index("uq_command_device_seq", "command")
    op.drop_index(op.f("ix_command_request"), "command")
    op.drop_table("command")
    op.drop_table("device_group")
    op.drop_table("device_tag")


def _rewrite_filters() -> None:
    rollout = sa.table("rollout", sa.column("id", sa.String), sa.column("to", sa.Text))
    connection = op.get_bind()
    for row in connection.execute(sa.select(rollout.c.id, rollout.c.to)).all():
        written = _written(row.to)
        if written != row.to:
            connection.execute(rollout.update().where(rollout.c.id == row.id).values(to=written))


def _written(text: str) -> str:
    if text.strip() == "all":
        return "all"
    terms = []
    for term in text.split(","):
        key, _, value = (part.strip() for part in term.partition("="))
        values = sorted({part.strip() for part in value.split("|")})
        terms.append(f"{key}={'|'.join(_quoted(part) for part in values)}")
    return " and ".join(terms)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value) and value not in ("and", "or", "not", "in"):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
