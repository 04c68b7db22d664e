"""Attacks on what the publishers say: each is refused, and what was known before still holds."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgefleet_agent.adapters import tuf_client
from edgefleet_agent.adapters.tuf_client import (
    FolderMetadata,
    HttpMetadata,
    MemoryMetadata,
    TufClient,
)
from edgefleet_contract.bundle import Digest
from edgefleet_contract.errors import TransientError, Unverified
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.messages import Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import Trust, TrustFloors
from tests.agent.repository import Repository

DAY = 86_400
DIGITS = Target("digits", "digits", 1, Digest("d" * 64), Digest("e" * 64), 100)


@dataclass
class Device:
    """A client with its folder and the floors that its journal would hold."""

    folder: Path
    repository: Repository
    floors: TrustFloors = field(default_factory=TrustFloors)
    later: int = 0

    def refresh(self, *sources: tuf_client.MetadataSource) -> Trust:
        client = TufClient(self.folder, self.repository.root)
        now = int(self.repository.now.timestamp()) + self.later
        trust = client.refresh(sources or (self.repository,), now=now, floors=self.floors)
        self.floors = trust.versions
        return trust

    def cached(self) -> Trust:
        client = TufClient(self.folder, self.repository.root)
        now = int(self.repository.now.timestamp()) + self.later
        return client.cached(now=now, floors=self.floors)


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def device(tmp_path: Path, repository: Repository) -> Device:
    found = Device(tmp_path / "trust", repository)
    found.refresh()
    return found


def refused(device: Device, *sources: tuf_client.MetadataSource) -> Reason:
    before = device.floors
    with pytest.raises(Unverified) as caught:
        device.refresh(*sources)
    assert device.floors == before
    return caught.value.reason


def test_what_the_publishers_say_arrives(device: Device, repository: Repository) -> None:
    repository.release(DIGITS)
    trust = device.refresh()
    assert trust.lists("digits", 1, DIGITS.bundle_sha256)
    assert not trust.lists("digits", 1, Digest("0" * 64))
    assert not trust.lists("digits", 2, DIGITS.bundle_sha256)
    assert [key.id for key in trust.publishers] == [repository.publisher.public.id]
    assert trust.director_ring.get(repository.director.public.id) is not None


def test_a_device_starts_without_a_network_from_what_it_accepted(device: Device) -> None:
    assert device.cached().versions == device.floors


def test_arbitrary_metadata_by_a_stranger_are_refused(
    device: Device, repository: Repository
) -> None:
    repository.publish(by=PrivateKey.generate_p256())
    assert refused(device) is Reason.METADATA_INVALID


def test_the_control_room_cannot_speak_for_a_publisher(
    device: Device, repository: Repository
) -> None:
    """Whoever has the repository key and the director key still cannot release anything."""
    repository.publish(by=repository.online)
    assert refused(device) is Reason.METADATA_INVALID


def test_a_frozen_repository_is_noticed_when_its_timestamp_ends(device: Device) -> None:
    device.later = 3 * DAY
    assert refused(device) is Reason.METADATA_EXPIRED
    with pytest.raises(Unverified):
        device.cached()


def test_a_clock_that_says_2020_does_not_bring_expired_metadata_back(
    device: Device, repository: Repository
) -> None:
    """The reference time is the caller's (clock or floor); python-tuf's own clock plays no part."""
    device.later = 3 * DAY
    assert refused(device) is Reason.METADATA_EXPIRED
    repository.now += datetime.timedelta(days=3)
    repository.publish()
    device.later = 0
    assert device.refresh().versions.timestamp == 2


@pytest.mark.parametrize("local", ["intact", "truncated", "deleted"])
def test_a_rollback_is_refused_whatever_became_of_the_local_files(
    device: Device, repository: Repository, local: str
) -> None:
    old = dict(repository.documents)
    repository.release(DIGITS)
    device.refresh()
    repository.documents = old
    for path in device.folder.rglob("*.json"):
        if local == "truncated":
            path.write_bytes(path.read_bytes()[:20])
        elif local == "deleted":
            path.unlink()
    assert refused(device) is Reason.METADATA_ROLLBACK


def test_a_fast_forward_is_undone_by_a_new_root_and_no_device_is_stuck(
    device: Device, repository: Repository
) -> None:
    """A thief of the repository key raises the timestamp to 2^31; the floors follow it.

    Going back then needs a higher number still, which the publishers' repository can give: versions
    are integers without a cap, so nobody is locked out.
    """
    repository.publish(version=2**31)
    device.refresh()
    repository.publish()
    assert device.refresh().versions.timestamp == 2**31 + 1


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_mixed_and_matched_documents_are_refused(
    device: Device, repository: Repository, role: str
) -> None:
    old = repository.documents[f"1.{role}.json"]
    repository.release(DIGITS)
    repository.documents[f"2.{role}.json"] = old
    assert refused(device) is Reason.METADATA_INVALID


def test_a_policy_that_is_not_the_listed_one_is_refused(
    device: Device, repository: Repository
) -> None:
    repository.revoke(digests=(Digest("f" * 64),))
    name = next(name for name in repository.documents if name.endswith(".revoked.json"))
    for name in [name for name in repository.documents if name.endswith(".revoked.json")]:
        repository.documents[name] = repository.documents[name].replace(b"f" * 64, b"e" * 64)
    assert refused(device) is Reason.METADATA_INVALID


def test_a_new_root_by_enough_old_keys_is_followed(device: Device, repository: Repository) -> None:
    second = PrivateKey.generate_p256()
    repository.new_root(publishers=(repository.publisher, second), signers=repository.roots[:2])
    repository.publish(by=second)
    trust = device.refresh()
    assert trust.versions.root == 2
    assert second.public in trust.publishers


@pytest.mark.parametrize("count", [0, 1])
def test_one_stolen_root_key_is_not_enough(
    device: Device, repository: Repository, count: int
) -> None:
    thief = PrivateKey.generate_p256()
    signers = [*repository.roots[:count], PrivateKey.generate_ed25519()]
    repository.new_root(publishers=(thief,), signers=signers)
    repository.publish(by=thief)
    assert refused(device) is Reason.METADATA_INVALID


def test_the_same_root_key_twice_is_one_key(device: Device, repository: Repository) -> None:
    thief = PrivateKey.generate_p256()
    one = repository.roots[0]
    repository.new_root(publishers=(thief,), signers=[one, one])
    assert refused(device) is Reason.METADATA_INVALID


def test_a_revoked_publisher_can_say_nothing_any_more(
    device: Device, repository: Repository
) -> None:
    stolen, fresh = repository.publisher, PrivateKey.generate_p256()
    repository.new_root(publishers=(fresh,))
    repository.publisher = fresh
    repository.publish()
    device.refresh()
    repository.publish(by=stolen)
    assert refused(device) is Reason.METADATA_INVALID


def test_hiding_the_newer_roots_is_refused(device: Device, repository: Repository) -> None:
    """A mirror that withholds root 2 cannot bring a revoked publisher back."""
    stolen, fresh = repository.publisher, PrivateKey.generate_p256()
    repository.new_root(publishers=(fresh,))
    repository.publisher = fresh
    repository.publish()
    device.refresh()
    hidden = repository.documents.pop("2.root.json")
    repository.publish(by=stolen)
    assert refused(device) in (Reason.METADATA_INVALID, Reason.METADATA_ROLLBACK)
    for path in device.folder.rglob("*.root.json"):
        path.unlink()
    assert refused(device) in (Reason.METADATA_INVALID, Reason.METADATA_ROLLBACK)
    repository.documents["2.root.json"] = hidden


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


def test_retained_messages_serve_as_a_repository(device: Device, repository: Repository) -> None:
    """Under the bare names that topics have; stale ones only delay."""
    repository.release(DIGITS)
    broker = MemoryMetadata()
    n = repository.version
    for name, raw in repository.documents.items():
        folder, _, last = name.rpartition("/")
        bare = last.partition(".")[2]
        if name.startswith("targets/"):
            broker.put(f"{folder}/{bare}", raw)
        elif name.endswith(".root.json") or name == "timestamp.json":
            broker.put(name, raw)
        elif name.startswith(f"{n}."):
            broker.put(bare, raw)
    assert device.refresh(broker).versions.timestamp == n


class Trouble(ThreadingHTTPServer):
    """An HTTP repository that misbehaves as `behave` says."""

    daemon_threads = True

    def __init__(self, behave: Callable[[BaseHTTPRequestHandler], None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    behave(self)
                except OSError:
                    return  # the client had enough

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    running: list[tuple[Trouble, threading.Thread]] = []

    def start(behave: Callable[[BaseHTTPRequestHandler], None]) -> str:
        server = Trouble(behave)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def test_endless_data_are_cut_off(
    device: Device, serve: Callable[[Callable[[BaseHTTPRequestHandler], None]], str]
) -> None:
    sent = [0]

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            sent[0] += handler.wfile.write(b"{" * 65_536)

    with pytest.raises((Unverified, TransientError)):
        device.refresh(HttpMetadata(serve(endless)))
    assert sent[0] < 32 * 1024 * 1024


def test_slow_data_are_given_up(
    device: Device,
    serve: Callable[[Callable[[BaseHTTPRequestHandler], None]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuf_client, "TOTAL_S", 1.0)
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b"{")

    began = time.monotonic()
    with pytest.raises(TransientError):
        device.refresh(HttpMetadata(serve(drip)))
    stop.set()
    assert time.monotonic() - began < 20


def test_a_repository_in_trouble_is_asked_again_later(
    device: Device, serve: Callable[[Callable[[BaseHTTPRequestHandler], None]], str]
) -> None:
    with pytest.raises(TransientError):
        device.refresh(HttpMetadata(serve(lambda handler: handler.send_error(503))))
    with pytest.raises(TransientError):
        device.refresh(HttpMetadata("http://127.0.0.1:1"))
    assert device.cached().versions == device.floors
