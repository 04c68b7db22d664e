"""Every certificate that was issued, so that none of the revoked ones is ever forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    """Make the table, and put in what the devices have now."""
    op.create_table(
        "certificate",
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificate")),
    )
    with op.batch_alter_table("certificate", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_certificate_device"), ["device"], unique=False)
        batch_op.create_index(batch_op.f("ix_certificate_key_id"), ["key_id"], unique=False)
    op.execute(
        "INSERT INTO certificate (serial, device, key_id, issued_at, expires_at, revoked_at, cause)"
        " SELECT certificate_serial, id, key_id, enrolled_at, certificate_expires,"
        " CASE WHEN key_id = '' THEN enrolled_at END,"
        " CASE WHEN key_id = '' THEN 'forgotten' ELSE '' END FROM device"
    )
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("revoked_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Go back; who was revoked is lost."""
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_column("revoked_at")
    op.drop_table("certificate")
