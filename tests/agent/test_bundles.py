from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.ports import Choice, Failed
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract.bundle import Manifest
from edgefleet_contract.errors import DeviceError, EdgefleetError, PeerError, TransientError
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.orders import Target
from edgefleet_contract.reasons import Reason
from tests.agent.models import model_path
from tests.agent.shelf import Shelf
from tests.contract.makers import target_of, write_bundle

KEY = PrivateKey.generate_p256()


def first(manifest: Manifest) -> Choice | Failed:
    return Choice(manifest.variants[0], "onnxruntime")


def bundles(tmp_path: Path, key: PrivateKey = KEY) -> tuple[Bundles, Store]:
    store = Store(tmp_path / "store")
    ring = KeyRing([key.public])
    made = Bundles(
        store=store,
        fetcher=Mover(store, [HttpChunks()]),
        publishers=lambda: ring,
        choose=first,
        hw="arm64",
    )
    return made, store


def bring(made: Bundles, target: Target, shelf: Shelf) -> object:
    return made.bring(target, (shelf.url,), lambda *_: None)


def test_a_signed_bundle_arrives_and_can_be_run(tmp_path: Path, shelf: Shelf) -> None:
    folder = write_bundle(tmp_path, KEY, content=b"weights" * 50_000)
    shelf.put_bundle(folder)
    made, _ = bundles(tmp_path)
    arrival = made.bring(target_of(folder), (shelf.url,), lambda *_: None)
    spec = made.spec(arrival.installed)
    assert model_path(spec).read_bytes() == b"weights" * 50_000
    assert (spec.engine, spec.variant.name, spec.version) == ("onnxruntime", "v", 1)
    assert arrival.transferred == 350_000 + len(b"golden")


def test_a_second_install_of_the_same_files_transfers_nothing(tmp_path: Path, shelf: Shelf) -> None:
    folder = write_bundle(tmp_path, KEY)
    shelf.put_bundle(folder)
    made, _ = bundles(tmp_path)
    bring(made, target_of(folder), shelf)
    shelf.blobs.clear()
    assert made.bring(target_of(folder), (shelf.url,), lambda *_: None).transferred == 0


def refused(made: Bundles, target: Target, shelf: Shelf, store: Store) -> Reason:
    with pytest.raises(EdgefleetError) as caught:
        bring(made, target, shelf)
    assert isinstance(caught.value, PeerError | DeviceError)
    assert not list(store.path(target.bundle_sha256).parent.iterdir())
    return caught.value.reason


def test_a_bundle_by_an_unknown_key_is_refused_and_stores_nothing(
    tmp_path: Path, shelf: Shelf
) -> None:
    folder = write_bundle(tmp_path, PrivateKey.generate_p256())
    shelf.put_bundle(folder)
    made, store = bundles(tmp_path)
    assert refused(made, target_of(folder), shelf, store) is Reason.UNKNOWN_KEY


def test_while_no_publisher_is_known_a_bundle_waits_and_is_not_held_to_be_forged(
    tmp_path: Path, shelf: Shelf
) -> None:
    folder = write_bundle(tmp_path, KEY)
    shelf.put_bundle(folder)
    store = Store(tmp_path / "store")
    made = Bundles(
        store=store,
        fetcher=Mover(store, [HttpChunks()]),
        publishers=KeyRing,
        choose=first,
        hw="arm64",
    )
    with pytest.raises(TransientError, match="what the publishers say is not known"):
        bring(made, target_of(folder), shelf)
    assert not any((tmp_path / "store" / "blobs").iterdir())


def test_a_signature_of_another_bundle_is_refused(tmp_path: Path, shelf: Shelf) -> None:
    one, two = write_bundle(tmp_path, KEY), write_bundle(tmp_path, KEY, version=2)
    shelf.put_bundle(one)
    shelf.put_bundle(two)
    made, store = bundles(tmp_path)
    mixed = replace(target_of(one), signature_sha256=target_of(two).signature_sha256)
    assert refused(made, mixed, shelf, store) is Reason.BUNDLE_MISMATCH


def test_a_bundle_that_is_not_what_the_order_says_is_refused(tmp_path: Path, shelf: Shelf) -> None:
    folder = write_bundle(tmp_path, KEY)
    shelf.put_bundle(folder)
    made, store = bundles(tmp_path)
    lie = replace(target_of(folder), version=2)
    assert refused(made, lie, shelf, store) is Reason.BUNDLE_MISMATCH
    small = replace(target_of(folder), max_bytes=3)
    assert refused(made, small, shelf, store) is Reason.TOO_LARGE


def test_a_bundle_for_a_later_agent_is_refused(tmp_path: Path, shelf: Shelf) -> None:
    folder = write_bundle(tmp_path, KEY, agent_min="99.0")
    shelf.put_bundle(folder)
    made, store = bundles(tmp_path)
    assert refused(made, target_of(folder), shelf, store) is Reason.AGENT_TOO_OLD


def test_a_disk_without_room_refuses_before_it_downloads(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path, KEY)
    shelf.put_bundle(folder)
    made, store = bundles(tmp_path)
    real = shutil.disk_usage(tmp_path)
    little = real._replace(free=real.total // 10 + 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: little)
    assert refused(made, target_of(folder), shelf, store) is Reason.NO_SPACE
    assert len(shelf.requests) == 2  # the two documents, and no file


def test_garbage_is_collected_and_what_is_needed_is_kept(tmp_path: Path, shelf: Shelf) -> None:
    made, store = bundles(tmp_path)
    arrivals = []
    for version in (1, 2, 3):
        folder = write_bundle(tmp_path, KEY, version=version, content=b"%d" % version * 100)
        shelf.put_bundle(folder)
        arrivals.append(made.bring(target_of(folder), (shelf.url,), lambda *_: None).installed)
    assert made.collect(arrivals[1:]) == 3  # bundle.json, model.sig, model; golden.npz is shared
    for item in arrivals[1:]:
        assert all(store.read(file.sha256) for file in made.spec(item).files.values())
    with pytest.raises(DeviceError):
        made.spec(arrivals[0])


def test_a_file_that_changed_on_disk_is_not_used(tmp_path: Path, shelf: Shelf) -> None:
    folder = write_bundle(tmp_path, KEY)
    shelf.put_bundle(folder)
    made, store = bundles(tmp_path)
    installed = made.bring(target_of(folder), (shelf.url,), lambda *_: None).installed
    path = store.path(target_of(folder).bundle_sha256)
    path.chmod(0o600)
    path.write_bytes(b"rot")
    with pytest.raises(DeviceError, match="changed on the disk"):
        made.spec(installed)
