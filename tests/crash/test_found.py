"""What the enumerations found in the agent once, each with a test of its own."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgefleet_agent import daemon, identity
from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.adapters.journal import COPIES, Journal
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.ports import Failed, ModelSpec
from edgefleet_agent.renewal import Renewal
from edgefleet_contract.bundle import sha256
from edgefleet_contract.errors import DeviceError, OperatorError
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.test_journal import states
from tests.crash.board import Board, MemoryHost, Site
from tests.crash.runs import fresh, installed
from tests.crash.stories import Link, stories
from tests.crash.trouble import Counting, Fault, Faulty

RAW = b"model" * 1_000
DIGEST = sha256(RAW)
NOBODY = 65_534


class Refusing(Counting):
    """A disk that gives an error at every call of one kind."""

    def __init__(self, name: str, number: int = errno.EIO) -> None:
        super().__init__()
        self.name, self._number = name, number

    def ahead(self, number: int, name: str) -> None:
        if name == self.name:
            raise OSError(self._number, os.strerror(self._number))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[Site, Path]]:
    with installed(tmp_path) as (site, first):
        yield site, fresh(first)


def test_a_start_on_a_read_only_disk_serves_before_it_can_write(
    device: tuple[Site, Path],
) -> None:
    """An install was at hand: the start has something to write, and cannot."""
    site, folder = device

    async def story() -> None:
        async with Board(folder, site) as board:
            board.take(2)
            await board.until(lambda: board.installer.device.phase is Phase.SELFTEST)
        async with Board(folder, site, Faulty(Fault.READ_ONLY, 1)) as board:
            assert board.version == 1

    asyncio.run(story())


def test_a_step_that_waits_for_the_disk_is_reported(device: tuple[Site, Path]) -> None:
    site, folder = device

    async def story() -> None:
        disk = Refusing("open_new", errno.EROFS)
        async with Board(folder, site, disk) as board:
            board.take(2)
            await board.until(lambda: bool(board.heard.steps))
            phase, reason, detail = board.heard.steps[0]
            assert (phase, reason) == (Phase.ACCEPTED, Reason.STORAGE_FAILED)
            assert "Read-only file system" in detail
            disk.name = ""
            await board.until(lambda: board.is_over(2))
            assert board.version == 2

    asyncio.run(story())


def test_files_that_cannot_be_removed_do_not_end_the_agent(device: tuple[Site, Path]) -> None:
    site, folder = device
    (folder / "store" / "blobs" / ("0" * 64)).write_bytes(b"garbage")

    async def story() -> None:
        async with Board(folder, site, Refusing("unlink")) as board:
            await board.until(lambda: board.heard.is_settled)
            assert board.version == 1

    asyncio.run(story())


def test_what_a_cut_left_is_collected_at_the_next_start(device: tuple[Site, Path]) -> None:
    site, folder = device
    orphans = [folder / "store" / name for name in ("blobs/" + "0" * 64, "parts/1.part")]
    for path in orphans:
        path.write_bytes(b"")

    async def story() -> None:
        async with Board(folder, site) as board:
            await board.until(lambda: board.heard.is_settled)

    asyncio.run(story())
    assert not any(path.exists() for path in orphans)


def test_a_part_whose_whole_is_there_is_collected_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(DIGEST, RAW)
    store.part_path(DIGEST).write_bytes(RAW)
    store.collect([DIGEST])
    assert store.has(DIGEST)
    assert not store.part_path(DIGEST).exists()


def test_nothing_is_collected_while_the_disk_does_not_say_what_is_needed(
    device: tuple[Site, Path],
) -> None:
    _, folder = device
    blobs = sorted((folder / "store" / "blobs").iterdir())
    bundles = Bundles(
        store=Store(folder / "store", Refusing("read")),
        fetcher=None,  # type: ignore[arg-type] # nothing is fetched
        publishers=lambda: None,  # type: ignore[arg-type, return-value] # nor verified
        choose=lambda manifest: (manifest.variants[0], ""),
        hw="",
    )
    assert bundles.collect(Journal(folder).load().slots.values()) == 0
    assert sorted((folder / "store" / "blobs").iterdir()) == blobs


def test_a_part_that_the_disk_refused_is_not_believed_again(tmp_path: Path) -> None:
    store = Store(tmp_path, Refusing("fsync"))
    with store.fs.open_resumable(store.part_path(DIGEST)) as part:
        store.fs.write(part, RAW)
        with pytest.raises(OSError, match="Input/output"):
            store.sync_part(DIGEST, part)
    assert not store.part_path(DIGEST).exists()


def test_a_changed_file_on_a_read_only_disk_is_refused_and_no_more(tmp_path: Path) -> None:
    Store(tmp_path).put(DIGEST, RAW)
    path = Store(tmp_path).path(DIGEST)
    path.unlink()
    path.write_bytes(b"changed")
    with pytest.raises(DeviceError, match="has changed"):
        Store(tmp_path, Refusing("unlink", errno.EROFS)).read(DIGEST)


def test_a_spoilt_journal_on_a_read_only_disk_is_no_reason_not_to_start(tmp_path: Path) -> None:
    first, second = states(2)
    journal = Journal(tmp_path)
    journal.save(first)
    journal.save(second)
    (tmp_path / COPIES[1]).write_bytes(b"")
    assert Journal(tmp_path, Refusing("replace", errno.EROFS)).load() == first


class BadSector(FileSystem):
    """A disk that cannot read some files."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def read(self, path: Path) -> bytes:
        if path.name in self._names:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(path)


def test_a_journal_copy_on_a_bad_sector_costs_one_step_and_is_replaced(tmp_path: Path) -> None:
    first, second = states(2)
    journal = Journal(tmp_path)
    journal.save(first)
    journal.save(second)
    again = Journal(tmp_path, BadSector(COPIES[1]))
    assert again.load() == first
    again.save(second)
    assert Journal(tmp_path).load() == second
    with pytest.raises(DeviceError, match="cannot read the journal"):
        Journal(tmp_path, BadSector(*COPIES)).load()


@pytest.mark.parametrize("at", range(1, 5))
def test_a_read_that_fails_once_costs_nothing(device: tuple[Site, Path], at: int) -> None:
    """The journal's copies, then the bundle of what is committed."""
    site, folder = device

    async def story() -> None:
        async with Board(folder, site, Faulty(Fault.EIO_ONCE, at)) as board:
            assert board.version == 1

    asyncio.run(story())


class Crowded(MemoryHost):
    """A runtime on a board without room for one of the versions."""

    async def activate(self, specs: tuple[ModelSpec, ...]) -> Failed | None:
        if {spec.version for spec in specs} == {2}:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return await super().activate(specs)


def test_a_start_whose_model_gets_no_process_serves_the_one_before(
    device: tuple[Site, Path],
) -> None:
    site, folder = device

    async def story() -> None:
        async with Board(folder, site) as board:
            assert await board.follow(2) is Phase.COMMITTED
        async with Board(folder, site, host=Crowded()) as board:
            await board.until(lambda: board.version == 1)

    asyncio.run(story())


def as_nobody(work: Callable[[], None]) -> int:
    """Run something without root's rights; its exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, NOBODY)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder of somebody who is not root."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def test_what_a_cut_left_read_only_can_be_written_again_by_its_owner(nobodys: Path) -> None:
    """A small file, cut off before its rename: it has its last mode already."""

    def work() -> None:
        store = Store(nobodys)
        left = store.path(DIGEST).with_name(f"{DIGEST}.new")
        left.write_bytes(b"")
        left.chmod(0o400)
        store.put(DIGEST, RAW)

    assert as_nobody(work) == 0


def test_a_part_cut_off_at_its_admission_can_be_gathered_again_by_its_owner(
    nobodys: Path,
) -> None:
    def work() -> None:
        store = Store(nobodys, Refusing("replace"))
        with store.fs.open_resumable(store.part_path(DIGEST)) as part:
            store.fs.write(part, RAW)
        try:
            store.admit(DIGEST)
        except DeviceError:
            Path.open(store.part_path(DIGEST), "r+b").close()

    assert as_nobody(work) == 0


def test_a_key_that_was_written_by_half_is_made_again(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="No space left"):
        identity.device_key(tmp_path, Faulty(Fault.SHORT_WRITE, 5))
    assert (tmp_path / "identity" / "device.key.new").stat().st_size > 0
    assert identity.device_key(tmp_path).public.algorithm == "ECDSA P-256"


@pytest.mark.parametrize("call", ["write", "replace"])
def test_a_bad_disk_at_a_renewal_costs_neither_the_certificate_nor_the_agent(
    tmp_path: Path, call: str
) -> None:
    with stories(tmp_path) as told:
        (story,) = (story for story in told if story.name == "certificate")
        story.prepare(tmp_path / "pi")
        mine = identity.load(tmp_path / "pi")
        before = mine.certificate.read_bytes()
        renewal = Renewal(mine, link=Link(), tls=Tls(None), fs=Refusing(call, errno.ENOSPC))
        renewal.take((tmp_path / "renewal" / "answer").read_bytes())
        assert mine.certificate.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk read-only")
def test_the_lock_can_be_taken_on_a_disk_that_went_read_only(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        with daemon._lock(tmp_path):
            pass
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with daemon._lock(tmp_path):
            pass
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_is_on_the_disk_before_anything_is_put_into_it(tmp_path: Path) -> None:
    class Noting(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.done: list[str] = []

        def ahead(self, number: int, name: str) -> None:
            self.done.append(name)

    fs = Noting()
    fs.mkdir(tmp_path / "a" / "b")
    assert fs.done == ["make_folder", "fsync_dir"] * 2
