"""Sealed bundles: keys of devices, keys of bundles, and what is handed out in the clear."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table and the columns; every bundle of before was handed out in the clear."""
    op.create_table(
        "sealing",
        sa.Column("bundle", sa.String(length=64), nullable=False),
        sa.Column("dek", sa.LargeBinary(), nullable=False),
        sa.Column("index_sha256", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bundle", name=op.f("pk_sealing")),
    )
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("seal_key", sa.String(length=64), nullable=False, server_default="")
        )
    with op.batch_alter_table("bundle", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("in_clear", sa.Boolean(), nullable=False, server_default=sa.true())
        )


def downgrade() -> None:
    """Go back; what was sealed can be sealed for nobody any more."""
    with op.batch_alter_table("bundle", schema=None) as batch_op:
        batch_op.drop_column("in_clear")
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_column("seal_key")
    op.drop_table("sealing")
