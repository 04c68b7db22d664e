"""What a fleet asks one device to do once, and what the device answers [wire-12].

A command is a DSSE envelope like an order: signed by a director, canonical JSON, for one device,
with a number that is used once and an end. It changes nothing that lasts: what a device should run
is said by orders alone. The answer is a plain message.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from edgefleet_contract import canonical, codec
from edgefleet_contract.bundle import is_name
from edgefleet_contract.envelope import open_envelope, render_envelope, seal
from edgefleet_contract.errors import Malformed
from edgefleet_contract.keys import KeyRing, Signer

COMMAND_TYPE: Final = "application/vnd.edgefleet.command.v1+json"
MAX_COMMAND_LIFE_S: Final = 3600
MAX_COMMAND_BYTES: Final = 160 * 1024
"""Of an envelope; what a command holds is in it in base64."""
MAX_INPUT_BYTES: Final = 64 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_LINES: Final = 1000
_MAX_SEQ: Final = 2**52


class Kind(StrEnum):
    """What can be asked."""

    PING = "ping"
    SNAPSHOT = "snapshot"
    RESTART_WORKER = "restart-worker"
    SELF_TEST = "self-test"
    LOGS = "logs"
    PREDICT = "predict"


ALLOWED: Final = (Kind.PING, Kind.SNAPSHOT, Kind.RESTART_WORKER, Kind.SELF_TEST)
"""What a device does unless its owner says otherwise: nothing whose answer is text of the site."""


class Outcome(StrEnum):
    """How a command ended."""

    DONE = "done"
    FAILED = "failed"  # it was tried
    REFUSED = "refused"  # nothing was done; the detail says why
    INTERRUPTED = "interrupted"  # the agent ended while it was at it, and does not do it again


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `slot` is whom `restart-worker`, `self-test` (empty: all) and `predict` mean;
    `lines` is how many `logs` wants; `body` is the input of `predict`, JSON as [api-6] has it.
    """

    SCHEMA: ClassVar[str] = "edgefleet.command/1"

    fleet: str
    device: str
    id: str
    seq: int
    issued: int
    expires: int
    kind: Kind
    slot: str = ""
    lines: int = 0
    body: str = ""
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_name(self.id):
            raise Malformed(f"command id {self.id[:80]!r}")
        if not 1 <= self.seq <= _MAX_SEQ:
            raise Malformed(f"command number {self.seq}")
        if self.slot and not is_name(self.slot):
            raise Malformed(f"slot {self.slot[:80]!r}")
        if not self.slot and self.kind in (Kind.PREDICT, Kind.RESTART_WORKER):
            raise Malformed(f"{self.kind} names no slot")
        if not 0 <= self.lines <= MAX_LINES or (self.kind is Kind.LOGS and not self.lines):
            raise Malformed(f"{self.lines} lines: 1 to {MAX_LINES} can be had")
        if len(self.body.encode()) > MAX_INPUT_BYTES:
            raise Malformed(f"the input has more than {MAX_INPUT_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What came of a command. `data` has what its kind answers [wire-12.6]; no null in it."""

    SCHEMA: ClassVar[str] = "edgefleet.command-result/1"

    device: str
    boot_id: str
    ts: int
    id: str
    kind: Kind
    outcome: Outcome
    detail: str = ""
    data: dict[str, object] | None = None
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if not is_name(self.id):
            raise Malformed(f"command id {self.id[:80]!r}")


def seal_command(command: Command, key: Signer) -> bytes:
    """The signed envelope of a command.

    Raises:
        Malformed: it would be larger than a device reads.
    """
    payload = canonical.render(codec.encode(command))
    raw = render_envelope(seal(payload, payload_type=COMMAND_TYPE, keys=(key,)))
    if len(raw) > MAX_COMMAND_BYTES:
        raise Malformed(f"the command has {len(raw)} bytes, at most {MAX_COMMAND_BYTES} are read")
    return raw


def open_command(raw: bytes, ring: KeyRing) -> Command:
    """The command in an envelope that a director of `ring` signed. Whether it is to be carried out
    is not judged here.

    Raises:
        Malformed: not a command, or too large to be one.
        Unverified: UNKNOWN_KEY or BAD_SIGNATURE.
    """
    verified = open_envelope(
        raw, payload_type=COMMAND_TYPE, ring=ring, what="command", max_bytes=MAX_COMMAND_BYTES
    )
    value = canonical.parse(verified.payload, what="command")
    if not isinstance(value, dict) or value.get("schema") != Command.SCHEMA:
        raise Malformed("command: unknown schema")
    return codec.decode(Command, value, what="command", unknown=True)
