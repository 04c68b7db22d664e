"""The client by itself: several sources, a cache, no room to work in. Attacks: `tests/attacks`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgefleet_agent.adapters import tuf_client
from edgefleet_agent.adapters.tuf_client import FolderMetadata, MemoryMetadata, TufClient
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import TransientError
from edgefleet_contract.orders import Target
from edgefleet_contract.trust import Trust, TrustFloors
from tests.agent.repository import Repository

DIGITS = Target("digits", "digits", 1, Digest("d" * 64), Digest("e" * 64), 100)


@dataclass
class Device:
    """A client with its folder and the floors that its journal would hold."""

    folder: Path
    repository: Repository
    floors: TrustFloors = field(default_factory=TrustFloors)

    @property
    def client(self) -> TufClient:
        return TufClient(self.folder, self.repository.root)

    @property
    def now(self) -> int:
        return int(self.repository.now.timestamp())

    def refresh(self, *sources: tuf_client.MetadataSource) -> Trust:
        trust = self.client.refresh(sources or (self.repository,), now=self.now, floors=self.floors)
        self.floors = trust.versions
        return trust


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def device(tmp_path: Path, repository: Repository) -> Device:
    found = Device(tmp_path / "trust", repository)
    found.refresh()
    return found


def test_a_device_starts_without_a_network_from_what_it_accepted(device: Device) -> None:
    assert device.client.cached(now=device.now, floors=device.floors).versions == device.floors
    assert device.client.seen() == device.floors


def test_without_a_cache_nothing_was_seen_but_the_root_that_the_claim_pinned(
    tmp_path: Path, repository: Repository
) -> None:
    client = Device(tmp_path / "new", repository).client
    seen = client.seen()
    assert (seen.root, seen.timestamp, seen.snapshot, seen.targets) == (1, 0, 0, 0)
    with pytest.raises(TransientError):
        client.cached(now=int(repository.now.timestamp()), floors=TrustFloors())


def test_the_first_good_source_makes_good_for_bad_ones(
    device: Device, repository: Repository, tmp_path: Path
) -> None:
    liar = Repository()
    stick = tmp_path / "stick"
    repository.release(DIGITS)
    for name, raw in repository.documents.items():
        (stick / name).parent.mkdir(parents=True, exist_ok=True)
        (stick / name).write_bytes(raw)
    trust = device.refresh(MemoryMetadata(), liar, FolderMetadata(stick))
    assert trust.lists("digits", 1, DIGITS.bundle_sha256)


def test_no_room_to_work_in_is_a_passing_trouble(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-tuf works in a folder of its own; without one, the agent goes on."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert device.client.seen() == TrustFloors()
    with pytest.raises(TransientError):
        device.refresh()
