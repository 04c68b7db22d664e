"""TUF metadata say who publishes: a table for the documents, none for publishers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table of documents, drop that of publishers."""
    op.create_table(
        "tuf_document",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tuf_document")),
    )
    op.drop_table("publisher_key")


def downgrade() -> None:
    """Go back; trusted publishers are to be named again."""
    op.create_table(
        "publisher_key",
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.String(length=32), nullable=False),
        sa.Column("trusted_at", sa.BigInteger(), nullable=False),
        sa.Column("trusted_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_publisher_key")),
    )
    op.drop_table("tuf_document")
