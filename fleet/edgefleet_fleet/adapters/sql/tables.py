"""The tables, as SQLAlchemy Core sees them; `migrations/` makes them, a test compares both."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_ID = sa.String(64)
_DIGEST = sa.String(64)
_TIME = sa.BigInteger
# SQLite numbers rows by itself only where the column is an INTEGER.
_ROW = sa.BigInteger().with_variant(sa.Integer, "sqlite")

setting = sa.Table(
    "setting",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
device = sa.Table(
    "device",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("key_id", _DIGEST, nullable=False),
    sa.Column("certificate_serial", sa.String(64), nullable=False),
    sa.Column("certificate_expires", _TIME, nullable=False),
    sa.Column("enrolled_at", _TIME, nullable=False),
    sa.Column("online", sa.Boolean, nullable=False),
    sa.Column("boot_id", sa.String(128), nullable=False),
    sa.Column("agent", sa.String(64), nullable=False),
    sa.Column("seen_at", _TIME, nullable=False),
    sa.Column("last_seq", sa.BigInteger, nullable=False),
    sa.Column("hw", sa.String(128), nullable=False),
    sa.Column("arch", sa.String(64), nullable=False),
    sa.Column("board", sa.String(256), nullable=False),
    sa.Column("reported", sa.Text, nullable=True),
    sa.Column("revoked_at", _TIME, nullable=True),
    sa.Column("seal_key", sa.String(64), nullable=False, server_default=""),
    sa.Column("last_command", sa.BigInteger, nullable=False, server_default="0"),
)
device_tag = sa.Table(
    "device_tag",
    metadata,
    sa.Column("device", _ID, sa.ForeignKey("device.id"), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(128), nullable=False),
)
device_group = sa.Table(
    "device_group",
    metadata,
    sa.Column("name", _ID, primary_key=True),
    sa.Column("filter", sa.Text, nullable=False),
    sa.Column("about", sa.String(256), nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
)
command = sa.Table(
    "command",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("request", _ID, nullable=False, index=True),
    sa.Column("device", _ID, sa.ForeignKey("device.id"), nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("slot", _ID, nullable=False),
    sa.Column("issued", _TIME, nullable=False),
    sa.Column("expires", _TIME, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=True),
    sa.Column("answered_at", _TIME, nullable=True),
    sa.Column("result", sa.Text, nullable=True),
    sa.Index("uq_command_device_seq", "device", "seq", unique=True),
)
certificate = sa.Table(
    "certificate",
    metadata,
    sa.Column("serial", sa.String(64), primary_key=True),
    sa.Column("device", _ID, nullable=False, index=True),
    sa.Column("key_id", _DIGEST, nullable=False, index=True),
    sa.Column("issued_at", _TIME, nullable=False),
    sa.Column("expires_at", _TIME, nullable=False),
    sa.Column("revoked_at", _TIME, nullable=True),
    sa.Column("cause", sa.String(16), nullable=False),
)
claim = sa.Table(
    "claim",
    metadata,
    sa.Column("id", _ROW, primary_key=True),
    sa.Column("secret_sha256", _DIGEST, nullable=False, unique=True),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("expires_at", _TIME, nullable=False),
    sa.Column("uses_left", sa.Integer, nullable=False),
    sa.Column("trust_sha256", _DIGEST, nullable=False),
    sa.Column("revoked", sa.Boolean, nullable=False),
    sa.Column("approve", sa.Boolean, nullable=False),
    sa.Column("listed", sa.Integer, nullable=False),
)
claim_device = sa.Table(
    "claim_device",
    metadata,
    sa.Column("claim", _ROW, sa.ForeignKey("claim.id"), primary_key=True),
    sa.Column("device", _ID, primary_key=True),
    sa.Column("key_id", _DIGEST, nullable=False),
)
enrolment_request = sa.Table(
    "enrolment_request",
    metadata,
    sa.Column("device", _ID, primary_key=True),
    sa.Column("key_id", _DIGEST, nullable=False),
    sa.Column("claim", _ROW, sa.ForeignKey("claim.id"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("hw", sa.String(128), nullable=False),
    sa.Column("board", sa.String(256), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
)
user = sa.Table(
    "user",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("token_sha256", _DIGEST, nullable=False, unique=True),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("expires_at", _TIME, nullable=True),
    sa.Column("revoked", sa.Boolean, nullable=False),
)
session = sa.Table(
    "session",
    metadata,
    sa.Column("id_sha256", _DIGEST, primary_key=True),
    sa.Column("user", sa.ForeignKey("user.name"), nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("expires_at", _TIME, nullable=False),
)
tuf_document = sa.Table(
    "tuf_document",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("at", _TIME, nullable=False),
)
bundle = sa.Table(
    "bundle",
    metadata,
    sa.Column("digest", _DIGEST, primary_key=True),
    sa.Column("signature_sha256", _DIGEST, primary_key=True),
    sa.Column("model", _ID, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("signer", _DIGEST, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("in_clear", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Index("ix_bundle_model_version", "model", "version"),
)
bundle_file = sa.Table(
    "bundle_file",
    metadata,
    sa.Column("bundle", _DIGEST, primary_key=True),
    sa.Column("path", sa.String(255), primary_key=True),
    sa.Column("role", sa.String(32), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", _DIGEST, nullable=False, index=True),
    sa.Column("chunk_list_sha256", _DIGEST, nullable=False),
)
sealing = sa.Table(
    "sealing",
    metadata,
    sa.Column("bundle", _DIGEST, primary_key=True),
    sa.Column("dek", sa.LargeBinary, nullable=False),
    sa.Column("index_sha256", _DIGEST, nullable=False),
    sa.Column("at", _TIME, nullable=False),
)
rollout = sa.Table(
    "rollout",
    metadata,
    sa.Column("id", sa.String(160), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("slot", _ID, nullable=False),
    sa.Column("target", sa.JSON, nullable=False),
    sa.Column("to", sa.Text, nullable=False),
    sa.Column("policy", sa.JSON, nullable=False),
    sa.Column("allow_downgrade", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("cause", sa.String(16), nullable=True),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("plan", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("progress", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("ended_at", _TIME, nullable=True),
)
rollout_device = sa.Table(
    "rollout_device",
    metadata,
    sa.Column("rollout", sa.String(160), sa.ForeignKey("rollout.id"), primary_key=True),
    sa.Column("device", _ID, sa.ForeignKey("device.id"), primary_key=True),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("order_seq", sa.BigInteger, nullable=True),
    sa.Column("phase", sa.String(32), nullable=True),
    sa.Column("reason", sa.String(32), nullable=True),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("updated_at", _TIME, nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("kind", sa.String(128), nullable=False, server_default=""),
    sa.Column("asked_at", _TIME, nullable=False, server_default="0"),
    sa.Column("heard_at", _TIME, nullable=False, server_default="0"),
    sa.Column("failed_selftest", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("told", sa.JSON, nullable=True),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("retry_at", _TIME, nullable=False, server_default="0"),
    sa.Column("answered_seq", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("ix_rollout_device_device", "device"),
    sa.Index("ix_rollout_device_rollout_outcome_wave_place", "rollout", "outcome", "wave", "place"),
)
block = sa.Table(
    "block",
    metadata,
    sa.Column("bundle", _DIGEST, primary_key=True),
    sa.Column("kind", sa.String(128), primary_key=True),
    sa.Column("rollout", sa.String(160), nullable=False),
    sa.Column("at", _TIME, nullable=False),
)
device_order = sa.Table(
    "device_order",
    metadata,
    sa.Column("device", _ID, sa.ForeignKey("device.id"), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("issued", _TIME, nullable=False),
    sa.Column("expires", _TIME, nullable=False),
    sa.Column("rollout", sa.String(160), nullable=False),
    sa.Column("asks", sa.JSON, nullable=False),
    sa.Column("targets", sa.JSON, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
)
event = sa.Table(
    "event",
    metadata,
    sa.Column("id", _ROW, primary_key=True),
    sa.Column("device", _ID, sa.ForeignKey("device.id"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False, server_default="install"),
    sa.Column("boot_id", sa.String(128), nullable=True),
    sa.Column("seq", sa.BigInteger, nullable=True),
    sa.Column("ts", _TIME, nullable=False),
    sa.Column("received_at", _TIME, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("uq_event_device_boot_id_seq", "device", "boot_id", "seq", unique=True),
    sa.Index("ix_event_device_id", "device", "id"),
    sa.Index("ix_event_device_kind_id", "device", "kind", "id"),
)
telemetry = sa.Table(
    "telemetry",
    metadata,
    sa.Column("id", _ROW, primary_key=True),
    sa.Column("device", _ID, sa.ForeignKey("device.id"), nullable=False),
    sa.Column("stream", sa.String(96), nullable=False),
    sa.Column("ts", _TIME, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("ix_telemetry_device_stream_id", "device", "stream", "id"),
)
webhook = sa.Table(
    "webhook",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("secret", sa.String(64), nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", _TIME, nullable=False),
    sa.Column("failing_since", _TIME, nullable=True),
    sa.Column("last_error", sa.Text, nullable=False),
    sa.Column("stopped", sa.Boolean, nullable=False),
)
idempotency_key = sa.Table(
    "idempotency_key",
    metadata,
    sa.Column("who", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("asked_sha256", _DIGEST, nullable=False),
    sa.Column("at", _TIME, nullable=False, index=True),
    sa.Column("status", sa.Integer, nullable=True),
    sa.Column("body", sa.LargeBinary, nullable=True),
)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", _ROW, primary_key=True),
    sa.Column("at", _TIME, nullable=False),
    sa.Column("who", sa.String(64), nullable=False),
    sa.Column("what", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
)
