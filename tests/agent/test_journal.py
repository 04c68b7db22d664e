from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from edgefleet_agent import install
from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.adapters.journal import COPIES, Journal
from edgefleet_agent.device import Device
from edgefleet_agent.install_events import OrderTaken
from edgefleet_contract import canonical, codec
from edgefleet_contract.errors import DeviceError
from edgefleet_contract.reasons import Reason
from tests.agent.playbook import committed, target
from tests.contract.makers import order_of


def states(count: int) -> list[Device]:
    """Devices that took 1, 2, … orders, each with an install at hand."""
    found, device = [], committed(1)
    for seq in range(2, count + 2):
        device, _ = install.step(device, OrderTaken(order_of(target(seq), seq=seq)))
        found.append(device)
    return found


def test_what_is_saved_is_what_a_new_process_loads(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for device in states(5):
        journal.save(device)
        assert Journal(tmp_path).load() == device


def test_a_fresh_device_has_an_empty_state(tmp_path: Path) -> None:
    assert Journal(tmp_path).load() == Device()


def test_a_save_goes_on_after_a_load(tmp_path: Path) -> None:
    first, second, third = states(3)
    Journal(tmp_path).save(first)
    again = Journal(tmp_path)
    again.load()
    again.save(second)
    again.save(third)
    assert Journal(tmp_path).load() == third


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "noise"])
def test_a_spoilt_copy_costs_one_step_and_no_more(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = states(2)
    journal = Journal(tmp_path)
    journal.save(first)
    journal.save(second)
    newest = tmp_path / COPIES[1]
    raw = newest.read_bytes()
    newest.write_bytes(
        {
            "empty": b"",
            "cut": raw[: len(raw) // 2],
            "flipped": raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:],
            "noise": b"\xff" * 100,
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert Journal(tmp_path).load() == first
    assert "set aside" in caplog.text
    assert newest.with_name(newest.name + ".corrupt").exists()


class FullDisk(FileSystem):
    """A disk on which nothing more can be written."""

    def write(self, file: object, data: bytes) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_state_before(tmp_path: Path) -> None:
    first, second = states(2)
    Journal(tmp_path).save(first)
    full = Journal(tmp_path, FullDisk())
    full.load()
    with pytest.raises(DeviceError) as caught:
        full.save(second)
    assert caught.value.reason is Reason.STORAGE_FAILED
    assert Journal(tmp_path).load() == first


@pytest.mark.parametrize("flipped", [b"9", b"0", b"12", b"-1"])
def test_a_spoilt_generation_does_not_bring_an_older_state_back(
    tmp_path: Path, flipped: bytes
) -> None:
    first, second = states(2)
    journal = Journal(tmp_path)
    journal.save(first)
    journal.save(second)
    older = tmp_path / COPIES[0]
    generation, _, rest = older.read_bytes().partition(b" ")
    assert generation == b"1"
    older.write_bytes(flipped + b" " + rest)
    assert Journal(tmp_path).load() == second


def test_a_journal_of_the_first_agents_is_read_and_replaced(tmp_path: Path) -> None:
    """Its digest covered the body alone; a device loses more by forgetting than by believing it."""
    first, second = states(2)
    body = canonical.render(codec.encode(first))
    digest = hashlib.sha256(body).hexdigest()
    (tmp_path / COPIES[0]).write_bytes(f"7 {digest}\n".encode() + body)
    journal = Journal(tmp_path)
    assert journal.load() == first
    journal.save(second)
    assert Journal(tmp_path).load() == second
