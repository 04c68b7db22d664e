"""A fleet as data bases of every released schema could hold it: a row for each table.

A value stands here under its column's name; a data base has those columns that its revision knows.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from edgefleet_contract import codec
from edgefleet_contract.bundle import Digest
from edgefleet_contract.messages import render
from edgefleet_contract.orders import Target
from edgefleet_contract.phases import Phase
from edgefleet_fleet.rollout_plan import Plan
from tests.contract.makers import order_of
from tests.fleet.device import event_of, model_sample, reported_of, running

DEVICE: Final = "press-3"
BUNDLE: Final = Digest("aa" * 32)
TARGET: Final = Target("digits", "digits", 1, BUNDLE, Digest("bb" * 32), 100)
ORDER: Final = order_of(TARGET, seq=7)
EVENT: Final = event_of(DEVICE, ORDER, Phase.COMMITTED, seq=3)
REPORTED: Final = reported_of(DEVICE, ORDER, Phase.COMMITTED, (running(TARGET),))
SAMPLE: Final = model_sample(DEVICE, ts=5)
PLAN: Final = Plan("salt", author="ada")
ROLLOUT: Final = "digits-1-r1"

_SIGNED: Final = b"\x00\xffsigned"
ROWS: Final[dict[str, dict[str, Any]]] = {
    "setting": {"key": "fleet", "value": "demo"},
    "device": {
        "id": DEVICE,
        "key_id": "cc" * 32,
        "certificate_serial": "51",
        "certificate_expires": 1_900_000_000,
        "enrolled_at": 1,
        "online": True,
        "boot_id": "boot",
        "agent": "0.1.0",
        "seen_at": 9,
        "last_seq": 7,
        "hw": "pi5",
        "arch": "aarch64",
        "board": "Raspberry Pi 5",
        "reported": render(REPORTED).decode(),
        "revoked_at": None,
        "seal_key": "seal",
        "last_command": 2,
    },
    "device_tag": {"device": DEVICE, "key": "site", "value": "hall3"},
    "device_group": {
        "name": "presses",
        "filter": "tag.site=hall3",
        "about": "in hall 3",
        "created_at": 2,
        "created_by": "ada",
    },
    "command": {
        "id": "c1",
        "request": "q1",
        "device": DEVICE,
        "seq": 2,
        "kind": "ping",
        "slot": "",
        "issued": 3,
        "expires": 4,
        "created_by": "ada",
        "envelope": _SIGNED,
        "outcome": None,
        "answered_at": None,
        "result": None,
    },
    "certificate": {
        "serial": "51",
        "device": DEVICE,
        "key_id": "cc" * 32,
        "issued_at": 1,
        "expires_at": 1_900_000_000,
        "revoked_at": None,
        "cause": "",
    },
    "claim": {
        "id": 4,
        "secret_sha256": "dd" * 32,
        "created_at": 1,
        "created_by": "ada",
        "expires_at": 1_900_000_000,
        "uses_left": 3,
        "trust_sha256": "ee" * 32,
        "revoked": False,
        "approve": True,
        "listed": 1,
    },
    "claim_device": {"claim": 4, "device": "press-4", "key_id": ""},
    "enrolment_request": {
        "device": "press-5",
        "key_id": "ab" * 32,
        "claim": 4,
        "state": "waiting",
        "hw": "pi5",
        "board": "Raspberry Pi 5",
        "address": "10.0.0.5",
        "created_at": 6,
    },
    "user": {
        "name": "ada",
        "role": "admin",
        "token_sha256": "12" * 32,
        "created_at": 1,
        "created_by": "local-admin",
        "expires_at": None,
        "revoked": False,
    },
    "session": {"id_sha256": "34" * 32, "user": "ada", "created_at": 1, "expires_at": 2},
    "tuf_document": {"name": "1.root.json", "body": _SIGNED, "at": 1},
    "publisher_key": {
        "key_id": "56" * 32,
        "pem": "pem",
        "algorithm": "p256",
        "trusted_at": 1,
        "trusted_by": "ada",
    },
    "bundle": {
        "digest": BUNDLE,
        "signature_sha256": TARGET.signature_sha256,
        "model": "digits",
        "version": 1,
        "size": 100,
        "created_at": 1,
        "created_by": "ada",
        "signer": "78" * 32,
        "complete": True,
        "in_clear": True,
    },
    "bundle_file": {
        "bundle": BUNDLE,
        "path": "v/model.onnx",
        "role": "model",
        "size": 60,
        "sha256": "9a" * 32,
        "chunk_list_sha256": "9b" * 32,
    },
    "sealing": {"bundle": BUNDLE, "dek": _SIGNED, "index_sha256": "9c" * 32, "at": 1},
    "rollout": {
        "id": ROLLOUT,
        "number": 1,
        "created_at": 5,
        "created_by": "ada",
        "slot": "digits",
        "target": codec.encode(TARGET),
        "to": "hw=pi5",
        "salt": "salt",
        "waves": [50, 100],
        "canaries": [DEVICE],
        "max_failures": None,
        "policy": {"probation_s": 7},
        "allow_downgrade": True,
        "state": "completed",
        "cause": None,
        "wave": 2,
        "excused": 0,
        "ended_at": 8,
        "why": "",
        "plan": codec.encode(PLAN),
        "progress": {"tally": {"0|good|": 1}, "ends": [str(2**64)], "wave_state": "passed"},
    },
    "rollout_device": {
        "rollout": ROLLOUT,
        "device": DEVICE,
        "wave": 0,
        "outcome": "good",
        "order_seq": 7,
        "phase": "committed",
        "reason": None,
        "detail": "",
        "updated_at": 8,
        "place": 0,
        "kind": "",
        "asked_at": 5,
        "heard_at": 8,
        "failed_selftest": False,
        "told": None,
        "tries": 0,
        "retry_at": 0,
        "answered_seq": 0,
    },
    "block": {"bundle": "9d" * 32, "kind": "rpi3", "rollout": ROLLOUT, "at": 8},
    "device_order": {
        "device": DEVICE,
        "seq": 7,
        "issued": 5,
        "expires": 1_900_000_000,
        "rollout": ROLLOUT,
        "asks": [ROLLOUT],
        "targets": [codec.encode(TARGET)],
        "envelope": _SIGNED,
    },
    "event": {
        "id": 1,
        "device": DEVICE,
        "kind": "install",
        "boot_id": EVENT.boot_id,
        "seq": EVENT.seq,
        "ts": EVENT.ts,
        "received_at": 8,
        "body": render(EVENT).decode(),
    },
    "telemetry": {
        "id": 1,
        "device": DEVICE,
        "stream": "model/digits",
        "ts": 5,
        "body": render(SAMPLE).decode(),
    },
    "webhook": {
        "name": "chat",
        "url": "https://chat.example/in",
        "secret": "s",
        "events": ["rollout.*"],
        "created_at": 1,
        "created_by": "ada",
        "cursor": 1,
        "attempts": 0,
        "next_at": 0,
        "failing_since": None,
        "last_error": "",
        "stopped": False,
    },
    "idempotency_key": {
        "who": "ada",
        "key": "once",
        "asked_sha256": "aa" * 32,
        "at": 5,
        "status": 201,
        "body": b"{}",
    },
    "audit": {
        "id": 1,
        "at": 5,
        "who": "ada",
        "what": "rollout.begin",
        "subject": ROLLOUT,
        "detail": "1 device",
        "address": "10.0.0.1",
    },
}


def fill(engine: sa.Engine) -> dict[str, dict[str, Any]]:
    """Put a row into each table that a data base has; what was put there, by table."""
    schema = sa.MetaData()
    schema.reflect(engine)
    put: dict[str, dict[str, Any]] = {}
    with engine.begin() as connection:
        for table in schema.sorted_tables:
            if table.name == "alembic_version":
                continue
            row = {column.name: ROWS[table.name][column.name] for column in table.columns}
            connection.execute(table.insert().values(row))
            put[table.name] = row
    return put
