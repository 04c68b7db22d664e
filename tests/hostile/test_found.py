"""Faults that the corpus found once: each stays mended."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet_agent.device import (
    Device,
    OrderRejected,
    OrderTaken,
    ProbationPassed,
    RolledBack,
    StepFailed,
)
from edgefleet_contract import canonical
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.errors import Malformed, Unverified
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.messages import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.test_install import chosen, committed, happy, play, target
from tests.contract.makers import order_of, write_bundle

ESCAPES = b'"' + b'\\"' * (canonical.MAX_BYTES // 2 - 1)


@pytest.mark.parametrize("raw", [ESCAPES, ESCAPES + b"\\", b'["' * 100_000, b'"' * 200_000])
def test_no_spelling_makes_the_reader_look_at_a_byte_twice(raw: bytes) -> None:
    """A string without an end once cost the square of its length: minutes for 256 KiB."""
    began = time.process_time()
    with pytest.raises(Malformed):
        canonical.parse_message(raw, what="x")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("raw", [b'{"a":"\\ud800"}', b'["\\uDFFF"]', b'["\\ude00\\ud83d"]'])
def test_text_that_cannot_be_written_is_not_read(raw: bytes) -> None:
    """A lone surrogate in a message once ended whoever stored or hashed it."""
    with pytest.raises(Malformed, match="lone surrogate"):
        canonical.parse_message(raw, what="x")
    assert canonical.parse_message(b'["\\ud83d\\ude00"]', what="x") == ["\U0001f600"]


def under_way(version: int) -> Device:
    """Version 1 is committed, another one serves on probation."""
    order = order_of(target(version), seq=2)
    return play(committed(1), *happy(order, chosen(version))[:6])[0]


def test_an_order_that_waited_cannot_bring_back_an_older_version() -> None:
    """It was judged against what ran before the order that it waited for."""
    device, _ = play(under_way(3), OrderTaken(order_of(target(2), seq=3)), ProbationPassed())
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.REJECTED, Reason.DOWNGRADE)
    assert device.slots["digits"] == chosen(3)
    allowed = order_of(target(2), seq=3, allow_downgrade=True)
    device, _ = play(under_way(3), OrderTaken(allowed), ProbationPassed())
    assert device.phase is Phase.ACCEPTED


def test_an_order_that_waited_cannot_bring_what_just_failed() -> None:
    failed = StepFailed(Reason.PROBATION_FAILED, "", "digits")
    again = OrderTaken(order_of(target(2), seq=3))
    device, _ = play(under_way(2), again, failed, RolledBack())
    assert device.install is not None
    assert (device.phase, device.install.reason) == (Phase.REJECTED, Reason.QUARANTINED)


def test_the_number_of_the_last_order_never_falls() -> None:
    """An order that was refused meanwhile has a higher number than the one that waited."""
    device, _ = play(
        under_way(2),
        OrderTaken(order_of(target(3), seq=3)),
        OrderRejected(order_of(target(4), seq=4), Reason.QUARANTINED),
        ProbationPassed(),
    )
    assert (device.phase, device.seq) == (Phase.ACCEPTED, 4)


def pipe_as_manifest(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    os.mkfifo(folder / "bundle.json")


def endless_signature(folder: Path) -> None:
    (folder / "model.sig").unlink()
    (folder / "model.sig").symlink_to("/dev/zero")


def folder_as_manifest(folder: Path) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").mkdir()


def bottomless(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(2_000):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def terminal_codes(folder: Path) -> None:
    (folder / "\x1b]0;mine\x07").write_bytes(b"")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "damage",
    [pipe_as_manifest, endless_signature, folder_as_manifest, bottomless, terminal_codes],
)
def test_a_directory_that_somebody_prepared_is_refused_at_once(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """A pipe once made the reader wait for ever, /dev/zero eat memory, 1,000 folders break off."""
    key = PrivateKey.generate_p256()
    folder = write_bundle(tmp_path, key)
    damage(folder)
    with pytest.raises(Unverified) as caught:
        verify_directory(folder, KeyRing([key.public]))
    assert caught.value.reason is Reason.BUNDLE_MISMATCH
    assert caught.value.message.isprintable()
    subprocess.run(["rm", "-rf", folder], check=True)  # shutil is lost in so many folders


def test_a_file_that_grew_is_not_read_to_its_end(tmp_path: Path) -> None:
    key = PrivateKey.generate_p256()
    folder = write_bundle(tmp_path, key)
    os.truncate(folder / "v" / "model.onnx", 2**43)  # sparse: 8 TiB take hours to hash
    with pytest.raises(Unverified) as caught:
        verify_directory(folder, KeyRing([key.public]))
    assert caught.value.reason is Reason.DIGEST_MISMATCH
