"""A bundle that is removed takes its blobs along: all that are its own, and none that is shared."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_contract.keys import PrivateKey
from edgefleet_fleet import doctor_facts
from edgefleet_fleet.adapters.s3_shelf import S3Shelf
from edgefleet_fleet.adapters.sql.store import sqlite_url
from edgefleet_fleet.adapters.sql.tables import bundle, bundle_file, sealing
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.doctor import judge
from edgefleet_fleet.errors import Conflict, NotFound
from edgefleet_fleet.leftovers import Leftovers
from edgefleet_fleet.ports import Shelf
from edgefleet_fleet.records import Bundle, BundleFile
from edgefleet_fleet.sealings import Sealings
from edgefleet_fleet.services import Services
from tests.contract.makers import write_bundle
from tests.fleet.stage import ME, push, receive

SHARED = os.urandom(70_000)


EVERYWHERE = pytest.mark.parametrize("far", [False, True], indirect=True, ids=["near", "far"])


@pytest.fixture
def far(request: pytest.FixtureRequest) -> bool:
    """Whether all is kept in a PostgreSQL and on an S3 server; else in files."""
    return bool(getattr(request, "param", False))


@pytest.fixture
def store_url(request: pytest.FixtureRequest, far: bool, tmp_path: Path) -> str:
    if far:
        return request.getfixturevalue("cluster").new_database()  # type: ignore[no-any-return]
    return sqlite_url(DataDir(tmp_path / "data").database)


@pytest.fixture
def room(request: pytest.FixtureRequest, far: bool, services: Services) -> Services:
    """A control room; what is on its shelf is old enough to be swept at once."""
    if far:
        services.room.shelf = S3Shelf(request.getfixturevalue("bucket"))
    services.leftovers._grace_s = -60
    return services


@pytest.fixture
def two(room: Services, publisher: PrivateKey, tmp_path: Path) -> tuple[Bundle, Bundle]:
    """Two bundles with the same weights, both sealed."""
    found = []
    for version in (1, 2):
        folder = write_bundle(tmp_path / str(version), publisher, version=version, content=SHARED)
        found.append(push(room, folder))
        Sealings(room.room).seal(found[-1].digest, found[-1].signature_sha256, actor=ME)
    return found[0], found[1]


def on_shelf(services: Services) -> set[str]:
    return set(services.room.shelf.digests())


def named(services: Services) -> set[str]:
    """What the data base names, counted here for itself."""
    with services.room.store.begin() as tx:
        found: set[str] = set()
        for each in tx.bundles.list():
            found |= {each.digest, each.signature_sha256}
            for file in tx.bundles.files(each.digest):
                found |= {file.sha256, file.chunk_list_sha256}
        indexes = tx.sealings.indexes()
    for index in indexes:
        found |= services.leftovers.of_index(index)
    return found


def rows(services: Services) -> list[int]:
    with services.room.store.engine.begin() as connection:
        tables = (bundle, bundle_file, sealing)
        return [
            int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() or 0)
            for table in tables
        ]


@EVERYWHERE
def test_what_is_its_own_goes_and_what_is_shared_stays(
    room: Services, two: tuple[Bundle, Bundle]
) -> None:
    before, kept = on_shelf(room), rows(room)
    assert before == named(room)
    gone = room.library.remove(two[0].digest, actor=ME)
    after = on_shelf(room)
    assert after == named(room)
    assert sha256(SHARED) in after
    assert len(before) - len(after) == gone
    assert gone >= 2 + 5  # manifest and signature; the sealed index, two files, two chunk lists
    assert rows(room) == [kept[0] - 1, kept[1] // 2, kept[2] - 1]
    assert room.library.remove(two[1].digest, actor=ME) == len(after)
    assert (on_shelf(room), rows(room)) == (set(), [0, 0, 0])
    assert room.leftovers.sweep() == 0


@EVERYWHERE
def test_a_kill_between_the_commit_and_the_last_blob_leaves_too_many_and_never_too_few(
    room: Services, two: tuple[Bundle, Bundle]
) -> None:
    class Killed(BaseException):
        """As if the process ended here."""

    class Dying:
        """A shelf on which the process ends at the third blob."""

        def __init__(self, shelf: Shelf) -> None:
            self.shelf, self.count = shelf, 0

        def remove(self, digest: Digest) -> None:
            self.count += 1
            if self.count == 3:
                raise Killed
            self.shelf.remove(digest)

        def __getattr__(self, name: str) -> object:
            return getattr(self.shelf, name)

    shelf = room.room.shelf
    room.room.shelf = Dying(shelf)  # type: ignore[assignment] # the rest is the shelf's
    with pytest.raises(Killed):
        room.library.remove(two[0].digest, actor=ME)
    room.room.shelf = shelf
    assert on_shelf(room) > named(room)
    findings = {f.name: f for f in judge(doctor_facts.gather(room))}
    assert "that nobody names" in findings["leftovers"].found
    assert findings["blobs"].status == "ok"
    with pytest.raises(NotFound):
        room.library.remove(two[0].digest, actor=ME)
    assert Leftovers(room.room).sweep() == 0  # younger than a day
    assert room.leftovers.sweep() > 0
    assert on_shelf(room) == named(room)
    assert "leftovers" not in {f.name for f in judge(doctor_facts.gather(room))}


def test_a_sweep_ends_what_earlier_removals_and_broken_off_work_left(
    room: Services, two: tuple[Bundle, Bundle]
) -> None:
    raw = b"sealed under a key that nobody was told"
    room.room.shelf.put(sha256(raw), io.BytesIO(raw), max_bytes=len(raw))
    with room.room.store.begin() as tx:
        tx.bundles.remove(two[0].digest)  # and nothing else: as it once was
    assert room.leftovers.sweep() > 5
    assert on_shelf(room) == named(room)
    assert rows(room)[2] == 1


def test_nothing_is_swept_while_it_is_not_known_what_an_index_names(
    room: Services, two: tuple[Bundle, Bundle]
) -> None:
    with room.room.store.begin() as tx:
        index = tx.sealings.get(two[0].digest)
    assert index is not None
    room.room.shelf.remove(index.index_sha256)
    room.leftovers._sealed.clear()
    before = on_shelf(room)
    raw = b"nobody's"
    room.room.shelf.put(sha256(raw), io.BytesIO(raw), max_bytes=len(raw))
    assert room.leftovers.sweep() == 0
    assert on_shelf(room) == before | {sha256(raw)}
    (missing,) = (f for f in judge(doctor_facts.gather(room)) if f.name == "blobs")
    assert "index of sealed files" in missing.found
    room.library.remove(two[0].digest, actor=ME)  # then it is known again
    room.leftovers.sweep()
    assert on_shelf(room) == named(room)


def test_a_bundle_that_comes_while_another_goes_keeps_what_it_shares(
    services: Services, publisher: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(services, write_bundle(tmp_path / "1", publisher, content=SHARED))
    folder = write_bundle(tmp_path / "2", publisher, version=2, content=SHARED)
    remove, came = services.leftovers.remove, []

    def and_meanwhile(blobs: list[Digest]) -> int:
        came.append(push(services, folder))  # after the commit, before the first blob
        return remove(blobs)

    monkeypatch.setattr(services.leftovers, "remove", and_meanwhile)
    services.library.remove(first.digest, actor=ME)
    assert sha256(SHARED) in on_shelf(services)
    assert on_shelf(services) == named(services)
    assert came[0].complete


def test_a_bundle_that_is_removed_while_it_is_completed_is_not_there(
    services: Services, publisher: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path, publisher)
    received = receive(services, folder)
    for file in received.missing:
        services.uploads.put(file.sha256, io.BytesIO((folder / file.path).read_bytes()))
    digest, signature = received.bundle.digest, received.bundle.signature_sha256
    derive = services.library._derive_chunk_list

    def and_meanwhile(file: BundleFile) -> None:
        derive(file)
        if rows(services)[0]:
            services.library.remove(digest, actor=ME)

    monkeypatch.setattr(services.library, "_derive_chunk_list", and_meanwhile)
    with pytest.raises((NotFound, Conflict)):
        services.library.complete(digest, signature, actor=ME)
    assert rows(services) == [0, 0, 0]


def test_a_bundle_that_is_removed_while_it_is_sealed_leaves_no_key(
    services: Services, publisher: PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = push(services, write_bundle(tmp_path, publisher))
    sealings = Sealings(services.room)
    put = services.room.shelf.put

    def and_meanwhile(digest: Digest, source: object, *, max_bytes: int) -> int:
        with services.room.store.begin() as tx:
            there = tx.bundles.get(found.digest)
        if there is not None:
            services.library.remove(found.digest, actor=ME)
        return put(digest, source, max_bytes=max_bytes)  # type: ignore[arg-type] # as it came

    monkeypatch.setattr(services.room.shelf, "put", and_meanwhile)
    with pytest.raises((NotFound, OperatorError)):
        sealings.seal(found.digest, found.signature_sha256, actor=ME)
    assert rows(services) == [0, 0, 0]
    services.leftovers._grace_s = -60
    services.leftovers.sweep()
    assert on_shelf(services) == set()
