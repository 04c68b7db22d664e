"""Rollouts with a plan and a progress of their own; devices with their place and class; blocks."""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_SCALE = 2**64
_NEW = ("place", "kind", "asked_at", "heard_at", "failed_selftest", "told")


def upgrade() -> None:
    """Make the columns, and say of every rollout that there is what its columns said."""
    # Not in a batch: SQLite would make the table anew, which its devices refer to.
    op.add_column("rollout", sa.Column("why", sa.Text(), nullable=False, server_default=""))
    for name in ("plan", "progress"):
        op.add_column(
            "rollout", sa.Column(name, sa.JSON(), nullable=False, server_default=sa.text("'{}'"))
        )
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("place", sa.BigInteger(), nullable=False, server_default="0"))
        batch_op.add_column(
            sa.Column("kind", sa.String(length=128), nullable=False, server_default="")
        )
        batch_op.add_column(
            sa.Column("asked_at", sa.BigInteger(), nullable=False, server_default="0")
        )
        batch_op.add_column(
            sa.Column("heard_at", sa.BigInteger(), nullable=False, server_default="0")
        )
        batch_op.add_column(
            sa.Column("failed_selftest", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        batch_op.add_column(sa.Column("told", sa.JSON(), nullable=True))
        batch_op.create_index(
            "ix_rollout_device_rollout_outcome_wave_place", ["rollout", "outcome", "wave", "place"]
        )
    op.create_table(
        "block",
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=128), nullable=False),
        sa.Column("rollout", sa.String(length=160), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", "kind", name=op.f("pk_block")),
    )
    _carry_over(op.get_bind())
    for name in ("salt", "waves", "canaries", "max_failures", "excused"):
        op.drop_column("rollout", name)


def _carry_over(connection: sa.Connection) -> None:
    rollout = sa.table(
        "rollout",
        *(sa.column(name) for name in ("id", "salt", "max_failures", "created_by", "state")),
        *(sa.column(name) for name in ("wave", "excused", "created_at")),
        *(sa.column(name, sa.JSON()) for name in ("waves", "canaries", "plan", "progress")),
    )
    member = sa.table(
        "rollout_device",
        *(sa.column(name) for name in ("rollout", "device", "wave", "outcome", "place")),
    )
    for row in connection.execute(sa.select(rollout)).all():
        mine = member.c.rollout == row.id
        cells: dict[str, int] = {}
        for device in connection.execute(sa.select(member).where(mine)).all():
            cell = f"{device.wave}|{device.outcome}|"
            cells[cell] = cells.get(cell, 0) + 1
            digest = hashlib.sha256(f"{row.salt}{device.device}".encode()).digest()
            place = int.from_bytes(digest[:8], "big") >> 1
            here = sa.and_(mine, member.c.device == device.device)
            connection.execute(member.update().where(here).values(place=place))
        bad = {cell: count for cell, count in cells.items() if "|bad|" in cell}
        values = {"plan": _plan(row), "progress": _progress(row, cells, bad)}
        connection.execute(rollout.update().where(rollout.c.id == row.id).values(values))


def _plan(row: Any) -> dict[str, Any]:
    gate = {"max_failures": row.max_failures} if row.max_failures is not None else {}
    return {
        "salt": row.salt,
        "waves": [{"percent": share} for share in row.waves],
        "canaries": list(row.canaries),
        "gate": gate,
        "author": row.created_by,
    }


def _progress(row: Any, cells: dict[str, int], bad: dict[str, int]) -> dict[str, Any]:
    failed = row.state == "paused" and bad and not row.excused
    done = row.state == "completed"
    return {
        "wave_state": "passed" if done else "failed" if failed else "open",
        "ends": [str(share * _SCALE // 100) for share in row.waves],
        "tally": cells,
        # all failures of before where a person had acknowledged some
        "excused": bad if row.excused else {},
        "quiet_since": row.created_at,
    }


def downgrade() -> None:
    """Go back; what only this release knows of a rollout is forgotten, and those that it alone can
    tell apart are paused or over."""
    connection = op.get_bind()
    for column in (
        sa.Column("salt", sa.String(64), nullable=False, server_default=""),
        sa.Column("waves", sa.JSON(), nullable=False, server_default=sa.text("'[100]'")),
        sa.Column("canaries", sa.JSON(), nullable=False, server_default=sa.text("'[]'")),
        sa.Column("max_failures", sa.Integer(), nullable=True),
        sa.Column("excused", sa.Integer(), nullable=False, server_default="0"),
    ):
        op.add_column("rollout", column)
    rollout = sa.table(
        "rollout",
        *(sa.column(name) for name in ("id", "salt", "max_failures", "state")),
        *(sa.column(name, sa.JSON()) for name in ("waves", "canaries", "plan")),
    )
    for row in connection.execute(sa.select(rollout)).all():
        plan = row.plan
        connection.execute(
            rollout.update()
            .where(rollout.c.id == row.id)
            .values(
                salt=plan["salt"],
                waves=[wave.get("percent") or 100 for wave in plan.get("waves", [])] or [100],
                canaries=plan.get("canaries", []),
                max_failures=plan.get("gate", {}).get("max_failures"),
                state=row.state if row.state in _KNOWN else "aborted",
            )
        )
    connection.execute(
        sa.text("UPDATE rollout_device SET outcome = 'asked' WHERE outcome IN :words").bindparams(
            sa.bindparam("words", ("started", "active", "silent"), expanding=True)
        )
    )
    connection.execute(
        sa.text("UPDATE rollout_device SET outcome = 'bad' WHERE outcome IN :words").bindparams(
            sa.bindparam("words", ("undelivered", "refused"), expanding=True)
        )
    )
    connection.execute(
        sa.text("UPDATE rollout_device SET outcome = 'withdrawn' WHERE outcome IN :w").bindparams(
            sa.bindparam("w", ("held", "blocked", "reverting", "reverted"), expanding=True)
        )
    )
    for name in ("why", "plan", "progress"):
        op.drop_column("rollout", name)
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.drop_index("ix_rollout_device_rollout_outcome_wave_place")
        for name in _NEW:
            batch_op.drop_column(name)
    op.drop_table("block")


_KNOWN = ("running", "paused", "completed", "aborted", "superseded")
