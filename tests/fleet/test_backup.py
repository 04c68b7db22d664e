"""Backups: one file, restored on either data base and either shelf, or not at all."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import OperatorError
from edgefleet_fleet import backup
from edgefleet_fleet.adapters.shelves import open_shelf
from edgefleet_fleet.adapters.sql import dump
from edgefleet_fleet.adapters.sql.store import Store, sqlite_url
from edgefleet_fleet.config import Config
from edgefleet_fleet.datadir import DataDir
from edgefleet_fleet.services import Services
from tests.fleet.stage import Stage


def silent(_what: str, _done: int, _of: int) -> None:
    pass


def rows_of(store: Store) -> dict[str, list[bytes]]:
    with store.snapshot() as connection:
        return {name: list(lines) for name, lines in dump.dump(connection)}


@pytest.fixture
def room(stage: Stage, services: Services) -> Services:
    """A control room in the middle of a rollout."""
    stage.devices("a", "b")
    stage.roll_out(1)
    stage.commit("a")
    with services.room.store.begin() as tx:
        tx.ledger.set_setting("fleet", services.room.fleet)
    return services


@pytest.fixture
def saved(room: Services, tmp_path: Path) -> Path:
    out = tmp_path / "fleet.tar"
    backup.write(out, room.room.keys, room.room.store, room.room.shelf, blobs=True, tell=silent)
    return out


@pytest.fixture(params=["sqlite", "postgresql"])
def elsewhere(request: pytest.FixtureRequest) -> str:
    """An empty data base; none named: in the data directory."""
    if request.param == "sqlite":
        return ""
    return str(request.getfixturevalue("cluster").new_database())


def test_what_is_restored_is_what_was_there(
    room: Services, saved: Path, elsewhere: str, bucket: str, tmp_path: Path
) -> None:
    data = DataDir(tmp_path / "restored")
    config = Config(database_url=elsewhere, shelf=bucket if elsewhere else "")
    about = backup.restore(saved, data, config, tell=silent)
    assert about.fleet == room.room.fleet
    with closing(Store(elsewhere or sqlite_url(data.database))) as store:
        store.migrate()
        found, was = rows_of(store), rows_of(room.room.store)
        assert found == was
        assert was["device"]
        assert was["rollout"]
        with store.begin() as tx:  # numbers go on behind those that were loaded
            assert tx.rollouts.next_number() == 2
    shelf, before = open_shelf(config, data), room.room.shelf
    digests = list(before.digests())
    assert list(shelf.digests()) == digests
    assert digests
    assert all(sha256(b"".join(shelf.read(digest))) == digest for digest in digests)
    for path in room.room.keys.keys.iterdir():
        assert (data.keys / path.name).read_bytes() == path.read_bytes()
    assert data.read_token() == room.room.keys.read_token()
    assert data.token.stat().st_mode & 0o077 == 0
    assert (data.keys / "director.pem").stat().st_mode & 0o077 == 0


def test_a_backup_is_for_its_owner_alone_and_overwrites_nothing(
    room: Services, saved: Path
) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600
    with pytest.raises(OperatorError, match="is there already"):
        backup.write(
            saved, room.room.keys, room.room.store, room.room.shelf, blobs=False, tell=silent
        )


def damaged(saved: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    raw = saved.read_bytes()
    for what, content in (
        ("cut", raw[: len(raw) // 2]),
        (
            "a bit",
            raw[: len(raw) // 3] + bytes([raw[len(raw) // 3] ^ 1]) + raw[len(raw) // 3 + 1 :],
        ),
        ("not a tar file", b"hello" * 1000),
        ("empty", b""),
    ):
        path = tmp_path / "damaged.tar"
        path.write_bytes(content)
        yield what, path
    path = tmp_path / "stranger.tar"
    with tarfile.open(saved) as tar, tarfile.open(path, "w") as out:
        for member in tar:
            if member.name == "SHA256SUMS":
                link = tarfile.TarInfo("data/keys/ca.key")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                out.addfile(link)
            out.addfile(member, tar.extractfile(member))
    yield "a link", path


def test_a_damaged_backup_restores_nothing(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    for what, path in damaged(saved, tmp_path):
        data = DataDir(tmp_path / "place" / "restored")
        with pytest.raises(OperatorError) as refused:
            backup.restore(path, data, Config(), tell=silent)
        assert "backup" in str(refused.value), what
        assert list((tmp_path / "place").iterdir()) == [], what


def test_a_place_that_is_not_empty_is_left_alone(
    room: Services, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(OperatorError, match="is not empty"):
        backup.restore(saved, room.room.keys, Config(), tell=silent)
    used = tmp_path / "used.db"
    with closing(Store(sqlite_url(used))) as store:
        store.migrate()
        with store.begin() as tx:
            tx.ledger.set_setting("fleet", "another")
    with pytest.raises(OperatorError, match="the data base is not empty"):
        backup.restore(
            saved, DataDir(tmp_path / "new"), Config(database_url=sqlite_url(used)), tell=silent
        )
    assert not (tmp_path / "new").exists()
    with closing(Store(sqlite_url(used))) as store:
        assert store.fleet() == "another"
        assert rows_of(store)["device"] == []
