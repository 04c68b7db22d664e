"""How the holders of a claim come in: whom it lists, and who waits for an operator."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Claims that were made before let everybody in at once, as they did."""
    with op.batch_alter_table("claim", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("approve", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        batch_op.add_column(sa.Column("listed", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("claim", schema=None) as batch_op:
        batch_op.alter_column("approve", server_default=None)
        batch_op.alter_column("listed", server_default=None)
    op.create_table(
        "claim_device",
        sa.Column("claim", _ROW, nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["claim"], ["claim.id"], name=op.f("fk_claim_device_claim")),
        sa.PrimaryKeyConstraint("claim", "device", name=op.f("pk_claim_device")),
    )
    op.create_table(
        "enrolment_request",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("claim", _ROW, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("hw", sa.String(length=128), nullable=False),
        sa.Column("board", sa.String(length=256), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["claim"], ["claim.id"], name=op.f("fk_enrolment_request_claim")),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_enrolment_request")),
    )


def downgrade() -> None:
    """Go back; claims that let in some end, since without their list they would let in all."""
    op.drop_table("enrolment_request")
    op.drop_table("claim_device")
    op.execute("UPDATE claim SET revoked = TRUE WHERE approve OR listed > 0")
    with op.batch_alter_table("claim", schema=None) as batch_op:
        batch_op.drop_column("listed")
        batch_op.drop_column("approve")
