"""Commands on the wire: signed, bounded, and nothing else is one."""

from __future__ import annotations

import pytest

from edgefleet_contract.boards import class_of
from edgefleet_contract.commands import (
    MAX_COMMAND_BYTES,
    MAX_INPUT_BYTES,
    Command,
    CommandResult,
    Kind,
    Outcome,
    open_command,
    seal_command,
)
from edgefleet_contract.errors import Malformed, PeerError, Unverified
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.messages import open_order, parse, render
from edgefleet_contract.reasons import Reason

KEY = PrivateKey.generate_ed25519()
RING = KeyRing([KEY.public])


def command(**more: object) -> Command:
    fields: dict[str, object] = {
        "fleet": "demo",
        "device": "pi-1",
        "id": "c1",
        "seq": 7,
        "issued": 100,
        "expires": 160,
        "kind": Kind.PING,
        **more,
    }
    return Command(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "found",
    [
        command(),
        command(kind=Kind.LOGS, lines=10),
        command(kind=Kind.PREDICT, slot="digits", body='{"inputs": [1.5, null, "ä"]}'),
        command(kind=Kind.PREDICT, slot="digits", body="x" * MAX_INPUT_BYTES),
    ],
    ids=lambda found: found.kind,
)
def test_a_command_that_is_sealed_is_the_command_that_is_opened(found: Command) -> None:
    raw = seal_command(found, KEY)
    assert len(raw) <= MAX_COMMAND_BYTES
    assert open_command(raw, RING) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "a b"},
        {"seq": 0},
        {"seq": 2**53 - 1},
        {"slot": "A"},
        {"kind": Kind.RESTART_WORKER},
        {"kind": Kind.PREDICT, "body": "{}"},
        {"kind": Kind.LOGS},
        {"kind": Kind.LOGS, "lines": 1001},
        {"kind": Kind.PREDICT, "slot": "digits", "body": "x" * (MAX_INPUT_BYTES + 1)},
        {"kind": Kind.PREDICT, "slot": "digits", "body": "ä" * MAX_INPUT_BYTES},
    ],
    ids=str,
)
def test_a_command_that_contradicts_itself_cannot_be_said(wrong: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        command(**wrong)


def test_a_command_by_another_key_or_with_another_bit_is_refused() -> None:
    raw = seal_command(command(), KEY)
    with pytest.raises(Unverified) as caught:
        open_command(raw, KeyRing([PrivateKey.generate_ed25519().public]))
    assert caught.value.reason is Reason.UNKNOWN_KEY
    with pytest.raises(Unverified):
        open_command(raw, KeyRing())
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(PeerError):
            open_command(bytes(changed), RING)


def test_a_command_is_no_order_and_an_oversized_one_is_not_read() -> None:
    with pytest.raises(Malformed, match="payload type"):
        open_order(seal_command(command(), KEY), RING)
    with pytest.raises(Malformed, match="at most"):
        open_command(b"{" + b" " * MAX_COMMAND_BYTES, RING)


def test_an_answer_reads_back_with_whatever_its_kind_says() -> None:
    data: dict[str, object] = {
        "slots": {"digits": {"passed": True, "p95_us": 12.5}},
        "lines": ["a"],
    }
    answer = CommandResult("pi-1", "boot", 5, "c1", Kind.SELF_TEST, Outcome.DONE, "", data)
    assert parse(CommandResult, render(answer), device="pi-1") == answer
    with pytest.raises(Malformed):
        parse(CommandResult, render(answer), device="pi-2")
    with pytest.raises(Malformed):
        parse(CommandResult, render(answer).replace(b'"c1"', b'"a b"'))


@pytest.mark.parametrize(
    ("board", "hw", "found"),
    [
        ("Raspberry Pi 4 Model B Rev 1.5", "arm64", "rpi4"),
        ("Raspberry Pi 400 Rev 1.0", "arm64", "rpi4"),
        ("Raspberry Pi 5 Model B Rev 1.0", "arm64", "rpi5"),
        ("Raspberry Pi 500 Rev 1.0", "arm64", "rpi5"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "arm64", "rpi3"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "arm64", "zero2w"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "arm64", "rpi4"),
        ("Rock 5B", "arm64", "arm64"),
        ("", "x86-64", "x86-64"),
    ],
)
def test_a_board_is_of_the_class_that_its_name_says(board: str, hw: str, found: str) -> None:
    assert class_of(board, hw) == found
