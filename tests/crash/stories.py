"""What the agent does with its disk, each told on a recorded disk, and what must hold after a cut.

A story runs real code of the agent over a `Recorder` and marks what it was promised. Its check gets
a disk that a power cut may have left, and the promises made until then; it runs the agent's own
recovery there and names what is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from cryptography import x509

from edgefleet_agent import identity
from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.adapters.tls import Tls
from edgefleet_agent.adapters.tuf_client import TufClient
from edgefleet_agent.device import Device
from edgefleet_agent.enrol import TRUST_FOLDER
from edgefleet_agent.identity import Enrolment, Identity
from edgefleet_agent.renewal import Renewal
from edgefleet_contract import messages
from edgefleet_contract.bundle import Digest, parse_manifest, sha256
from edgefleet_contract.enrolment import CertificateResponse
from edgefleet_contract.errors import EdgefleetError
from edgefleet_contract.phases import Phase
from edgefleet_contract.topics import Channel
from edgefleet_fleet.authority import Authority
from tests.agent.repository import Repository
from tests.agent.shelf import serve
from tests.crash.board import Board, Site, left_over, make_site
from tests.crash.disk import Mark
from tests.crash.simulator import Check, Recorder

Prepare: TypeAlias = Callable[[Path], None]
Tell: TypeAlias = Callable[[Recorder], None]


@dataclass(frozen=True, slots=True)
class Story:
    """`prepare` fills the disk, unrecorded; `tell` is what is cut; `check` judges.

    `quick` is a check that starts no agent: enough to see that something is lost.
    """

    name: str
    prepare: Prepare
    tell: Tell
    check: Check
    quick: Check


class MarkedJournal(Journal):
    """A journal that notes when a state begins to be saved, and when it is."""

    def save(self, device: Device) -> None:
        assert isinstance(self._fs, Recorder)
        self._fs.mark("saving", device)
        super().save(device)
        self._fs.mark("saved", device)


class MarkedStore(Store):
    """A store that notes what it has taken in, and what it was allowed to drop."""

    def put(self, digest: Digest, raw: bytes) -> None:
        super().put(digest, raw)
        self._mark("stored", digest)

    def admit(self, digest: Digest) -> None:
        super().admit(digest)
        self._mark("stored", digest)

    def collect(self, keep: object) -> int:
        kept = set(keep)  # type: ignore[call-overload] # an iterable of digests
        self._mark("collecting", frozenset(kept))
        return super().collect(kept)

    def _mark(self, word: str, value: object) -> None:
        if isinstance(self.fs, Recorder):
            self.fs.mark(word, value)


@contextmanager
def stories(room: Path) -> Iterator[list[Story]]:
    """Every story; what they need (a shelf, keys) is there until the block ends."""
    with serve() as shelf:
        site = make_site(shelf, room / "bundles", versions=3)
        yield [
            _installing("first install", site, 1),
            _installing("second install", site, 2),
            _installing("third install, which collects the first", site, 3),
            _metadata(),
            _enrolment(),
            _renewal(room / "renewal"),
        ]


def _nothing(folder: Path) -> None:
    folder.mkdir(mode=0o700)


# --- installs ------------------------------------------------------------------------------------


def _installing(name: str, site: Site, number: int) -> Story:
    """Version `number`, on a device that installed the ones before it."""
    check = _check_install(site, number)
    return Story(name, _install_before(site, number), _install(site, number), check, _check_files)


def _install_before(site: Site, number: int) -> Prepare:
    async def install(folder: Path) -> None:
        async with Board(folder, site) as board:
            for before in range(1, number):
                assert await board.follow(before) is Phase.COMMITTED

    def prepare(folder: Path) -> None:
        _nothing(folder)
        if number > 1:
            asyncio.run(install(folder))

    return prepare


def _install(site: Site, number: int) -> Tell:
    async def install(recorder: Recorder) -> None:
        marked = {"journal": MarkedJournal, "store": MarkedStore}
        async with Board(recorder.root, site, recorder, **marked) as board:  # type: ignore[arg-type] # of two kinds
            assert await board.follow(number) is Phase.COMMITTED

    return lambda recorder: asyncio.run(install(recorder))


def _check_install(site: Site, number: int) -> Check:
    def check(folder: Path, marks: Sequence[Mark]) -> list[str]:
        wrong = _check_files(folder, marks)
        if not wrong:  # a start on a disk that is bad already says nothing new
            wrong = asyncio.run(_check_start(folder, site, number))
        return wrong

    return check


def _check_files(folder: Path, marks: Sequence[Mark]) -> list[str]:
    return _check_journal(folder, marks) or _check_store(folder, marks)


def check_files(folder: Path) -> list[str]:
    """What is wrong with the files of a device that promised nothing that is known here."""
    return _check_files(folder, ())


def _check_journal(folder: Path, marks: Sequence[Mark]) -> list[str]:
    allowed: list[object] = [Device()]
    for mark in marks:
        if mark.word == "saved":
            allowed = [mark.value]
        elif mark.word == "saving":
            allowed.append(mark.value)
    if not any(mark.word == "saved" for mark in marks):
        allowed.append(None)  # what was there before the story is judged by the start
    try:
        found = Journal(folder, _Still()).load()
    except EdgefleetError as error:
        return [f"the journal cannot be read: {type(error).__name__}"]
    return [] if found in allowed or None in allowed else ["a journal that nobody saved last"]


class _Still(FileSystem):
    """A layer that changes nothing: a look must not mend what the start is to find."""

    def replace(self, source: Path, target: Path) -> None:
        """Leave it where it is."""


def _check_store(folder: Path, marks: Sequence[Mark]) -> list[str]:
    blobs, stored = folder / "store" / "blobs", set[Digest]()
    for mark in marks:
        if mark.word == "stored":
            stored.add(mark.value)  # type: ignore[arg-type] # so marked
        elif mark.word == "collecting":
            stored &= mark.value  # type: ignore[operator] # so marked
    wrong = ["a stored file is gone" for digest in stored if not (blobs / digest).is_file()]
    present = blobs.iterdir() if blobs.is_dir() else ()
    wrong += [
        "a file in the store is not what its name says"
        for path in present
        if path.suffix != ".new" and sha256(path.read_bytes()) != path.name
    ]
    for item in Journal(folder, _Still()).load().slots.values():
        try:
            manifest = parse_manifest((blobs / item.target.bundle_sha256).read_bytes())
        except OSError:
            wrong.append("the committed model cannot be served")
            continue
        (variant,) = manifest.variants
        if not all((blobs / file.sha256).is_file() for file in manifest.files_for(variant)):
            wrong.append("the committed model cannot be served")
    return wrong


async def _check_start(folder: Path, site: Site, number: int) -> list[str]:
    """What is wrong with the start of the agent on this disk, and with what comes of it."""
    before = Journal(folder, _Still()).load().slots.get("digits")
    try:
        async with Board(folder, site) as board:
            if before is not None and board.version != before.target.version:
                return ["a start does not serve what is committed"]
            ended = await board.follow(number)
            found = [
                *([] if ended is Phase.COMMITTED else [f"it ends {board.heard.steps[-1]}"]),
                *([] if board.version == number else ["it does not converge"]),
                *(["quarantined"] if board.installer.device.quarantined else []),
            ]
    except Exception as error:  # noqa: BLE001  # whatever the agent dies of is what is looked for
        return [f"the agent dies: {type(error).__name__}"]
    return found + [f"left over: {name.rpartition('.')[2]}" for name in left_over(folder)]


# --- metadata, enrolment, certificate ------------------------------------------------------------


def _metadata() -> Story:
    """A refresh, and the next: what was accepted is there for a start without a network."""
    repository, steps = Repository(), list[tuple[dict[str, bytes], int]]()
    for _ in range(2):
        repository.publish()
        steps.append((dict(repository.documents), repository.version))
    now, floors = int(repository.now.timestamp()), Device().trust

    def tell(recorder: Recorder) -> None:
        client = TufClient(recorder.root / TRUST_FOLDER, repository.root, recorder)
        for documents, version in steps:
            client.refresh((_Documents(documents),), now=now, floors=floors)
            recorder.mark("refreshed", version)

    def check(folder: Path, marks: Sequence[Mark]) -> list[str]:
        client = TufClient(folder / TRUST_FOLDER, repository.root)
        try:
            found = client.cached(now=now, floors=floors).versions.timestamp
        except EdgefleetError as error:
            return [f"no metadata: {type(error).__name__}"] if marks else []
        return ["older metadata than were kept"] if marks and found < marks[-1].value else []  # type: ignore[operator] # a version

    return Story("metadata", _nothing, tell, check, check)


@dataclass
class _Documents:
    documents: dict[str, bytes]

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        if name not in self.documents:
            raise KeyError(name)
        yield self.documents[name]


WHERE = Enrolment("demo", "pi-1", "broker", 8883, "http://fleet/metadata")


def _enrolment() -> Story:
    """The key, then all that a claim brought; a try that was cut off can be repeated."""
    given = {"certificate": "CERTIFICATE\n" * 40, "root": b"ROOT" * 200, "ca": "CA\n" * 200}

    def tell(recorder: Recorder) -> None:
        key = identity.device_key(recorder.root, recorder)
        recorder.mark("key", key.public.id)
        identity.save(recorder.root, WHERE, fs=recorder, **given)  # type: ignore[arg-type] # of two types
        recorder.mark("enrolled")

    def check(folder: Path, marks: Sequence[Mark]) -> list[str]:
        promised = {mark.word: mark.value for mark in marks}
        try:
            if "enrolled" in promised and not identity.is_enrolled(folder):
                return ["an enrolment is forgotten"]
            key = identity.device_key(folder).public.id
            if promised.get("key", key) != key:
                return ["another key than the one that was certified"]
            if not identity.is_enrolled(folder):
                identity.save(folder, WHERE, **given)  # type: ignore[arg-type] # of two types
            found = identity.load(folder)
        except EdgefleetError as error:
            return [f"stuck: {type(error).__name__}"]
        files = (found.certificate.read_text(), found.root, found.authority.read_text())
        return [] if (found.enrolment, *files) == (WHERE, *given.values()) else ["spoilt"]

    return Story("enrolment", _nothing, tell, check, check)


@dataclass
class Link:
    """A broker that takes every certificate."""

    tried: list[Path] = field(default_factory=list)

    def publish(self, channel: Channel, payload: bytes) -> None:
        raise AssertionError(channel)

    def try_certificate(self, certificate: Path, *, tried: Callable[[bool], None]) -> None:
        self.tried.append(certificate)
        tried(True)

    def use_certificate(self) -> None:
        raise AssertionError("nothing ended")


def _renewal(room: Path) -> Story:
    """A certificate is replaced: the old one or the new one is there, whole."""
    now = datetime.now(UTC)
    authority = Authority.create("demo", now=now)
    key = identity.device_key(room)
    old, new = (
        authority.issue_client("pi-1", key.public, now=now - timedelta(days=age), days=90).pem
        for age in (80, 0)
    )
    identity.save(room, WHERE, certificate=old, root=b"{}", ca=authority.pem)
    (room / "answer").write_bytes(messages.render(CertificateResponse("pi-1", new)))

    def prepare(folder: Path) -> None:
        _nothing(folder)
        (folder / identity.FOLDER).mkdir()
        for path in (room / identity.FOLDER).iterdir():
            (folder / identity.FOLDER / path.name).write_bytes(path.read_bytes())

    def tell(recorder: Recorder) -> None:
        mine: Identity = identity.load(recorder.root)
        renewal = Renewal(mine, link=Link(), tls=Tls(None), fs=recorder)
        renewal.take((room / "answer").read_bytes())
        recorder.mark("renewed")

    def check(folder: Path, marks: Sequence[Mark]) -> list[str]:
        try:
            found = identity.load(folder).certificate.read_text()
            x509.load_pem_x509_certificate(found.encode())
        except (EdgefleetError, OSError, ValueError) as error:
            return [f"no certificate: {type(error).__name__}"]
        return [] if found in ((new,) if marks else (old, new)) else ["another certificate"]

    return Story("certificate", prepare, tell, check, check)
