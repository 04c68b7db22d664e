"""What the publishers say now, by python-tuf: fresh, complete, and never older than seen before.

python-tuf's client does the TUF workflow (root chain, thresholds, expiry, consistent snapshots,
hashes). Two things it leaves open are closed here: it never fsyncs, and lost local metadata let a
rollback through, so it keeps no state at all: every refresh begins at the root that the claim
pinned, and the versions reached are held against floors from the fsynced journal; and it believes
the board's clock, so the reference time is the later of clock and time floor.

Metadata come from any of several sources, none of them believed: HTTP, retained MQTT messages, a
folder on a stick. What was accepted is cached, so that a device starts without a network, and so
that a lost journal does not forget what was seen: the signatures in the cache tell (`seen`).
"""

from __future__ import annotations

import datetime
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.fetcher import FetcherInterface

from edgefleet_agent.adapters.fs import FileSystem, write_durably
from edgefleet_agent.adapters.http_session import FOREIGN, HttpSession
from edgefleet_agent.adapters.tls import Tls
from edgefleet_contract import canonical
from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import PeerError, TransientError, Unverified
from edgefleet_contract.keys import PublicKey
from edgefleet_contract.reasons import Reason
from edgefleet_contract.trust import (
    FLEET_POLICY,
    MAX_TARGET_BYTES,
    REVOKED_POLICY,
    FleetPolicy,
    RevokedPolicy,
    Trust,
    TrustFloors,
    parse_policy,
)

log = logging.getLogger(__name__)

TOTAL_S: Final = 30.0
"""How long one document may take altogether: a source that drips is no source."""
CONFIG: Final = UpdaterConfig(
    max_root_rotations=64,
    max_delegations=0,
    root_max_length=128 * 1024,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=256 * 1024,
    targets_max_length=2 * 1024 * 1024,
)


class MetadataSource(Protocol):
    """Somewhere metadata may be had. Nothing that it gives is believed."""

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """The document `name` (`timestamp.json`, `3.root.json`, `targets/policy/….json`).

        Raises:
            KeyError: it does not have it.
            TransientError: it cannot be reached.
        """
        ...


class HttpMetadata:
    """A base URL."""

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self._url = url.rstrip("/")
        self._session = HttpSession(timeout=(5.0, 10.0), patience_s=TOTAL_S, tls=tls)

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """See `MetadataSource`."""
        left, end = max_bytes, time.monotonic() + TOTAL_S
        try:
            with self._session.get(f"{self._url}/{name}", {}) as answer:
                if answer.status in (403, 404):
                    raise KeyError(name)
                if answer.status != 200:
                    raise TransientError(f"{self._url}/{name} answered {answer.status}")
                for piece in answer.pieces(16 * 1024):
                    yield piece
                    left -= len(piece)
                    if left < 0 or time.monotonic() > end:
                        raise TransientError(f"{self._url}/{name} is too long or too slow")
        except FOREIGN as error:
            raise TransientError(f"{self._url}: {str(error)[:200]}") from None


class FolderMetadata:
    """A folder: the cache, or a stick that somebody carried here."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """See `MetadataSource`."""
        try:
            with (self._root / name).open("rb") as file:
                yield file.read(max_bytes + 1)
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise TransientError(f"{self._root / name}: {error.strerror}") from None


class MemoryMetadata:
    """What came by MQTT: the newest of each retained document."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}

    def put(self, name: str, raw: bytes) -> None:
        """Keep a document; called from the link's thread."""
        self._documents[name] = raw

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """See `MetadataSource`. All but roots are kept without version or digest in front."""
        folder, _, last = name.rpartition("/")
        bare = "/".join(part for part in (folder, last.partition(".")[2]) if part)
        found = self._documents.get(name) or self._documents.get(bare)
        if found is None:
            raise KeyError(name)
        yield found[: max_bytes + 1]


class _Fetcher(FetcherInterface):
    """python-tuf's door to our sources: the first that has a document, and what it gave."""

    def __init__(self, sources: tuple[MetadataSource, ...]) -> None:
        self._sources = sources
        self.got: dict[str, bytes] = {}
        self.trouble: TransientError | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix("edgefleet:///")
        for source in self._sources:
            kept: list[bytes] = []
            try:
                for block in source.read(name, CONFIG.targets_max_length):
                    kept.append(block)
                    yield block
            except KeyError:
                continue
            except TransientError as error:
                self.trouble = error
                raise exceptions.DownloadError(error.message) from None
            self.got[name] = b"".join(kept)
            return
        raise exceptions.DownloadHTTPError(f"nobody has {name}", 404)


class TufClient:
    """The TUF client of one device. `root` is the document that the claim pinned."""

    def __init__(self, folder: Path, root: bytes, fs: FileSystem | None = None) -> None:
        self._folder, self._root = folder, root
        self._fs = fs or FileSystem()

    def cached(self, *, now: int, floors: TrustFloors) -> Trust:
        """What was accepted last, without a network; it expires like everything else.

        Raises:
            Unverified: METADATA_EXPIRED, METADATA_ROLLBACK or METADATA_INVALID.
            TransientError: there is nothing in the cache.
        """
        return self.refresh((), now=now, floors=floors)

    def seen(self) -> TrustFloors:
        """The versions that were accepted before, by the cache, as far as it can be read.

        It makes good for a lost journal, also after the cache's end: a signature that is past its
        date still says which version was seen.
        """
        fetcher = _Fetcher((FolderMetadata(self._folder),))
        try:
            with tempfile.TemporaryDirectory(prefix="edgefleet-tuf-") as scratch:
                updater = self._updater(fetcher, scratch, now=0)
                try:
                    updater.refresh()
                except (exceptions.RepositoryError, exceptions.DownloadError, ValueError) as error:
                    log.info("cache of metadata: %s", error)
                return _versions(updater._trusted_set)
        except OSError as error:  # python-tuf works in a scratch folder
            log.warning("cache of metadata: no scratch folder: %s", error.strerror)
            return TrustFloors()

    def refresh(
        self, sources: tuple[MetadataSource, ...], *, now: int, floors: TrustFloors
    ) -> Trust:
        """What the publishers say now; the first source that gives something valid decides.

        Args:
            sources: tried in turn; the cache fills what they do not have.
            now: the later of the board's clock and the time floor, seconds since 1970.
            floors: versions that were seen before.

        Raises:
            Unverified: METADATA_EXPIRED (freeze), METADATA_ROLLBACK, METADATA_INVALID.
            TransientError: no source could be reached.
        """
        cache = FolderMetadata(self._folder)
        refused: PeerError | None = None
        trouble: TransientError | None = None
        for source in sources or (cache,):
            try:
                return self._refresh(source, cache, now, floors)
            except PeerError as error:
                log.warning("metadata refused: %s", error.message)
                refused = error
            except TransientError as error:
                trouble = error
            except OSError as error:  # python-tuf works in a scratch folder
                trouble = TransientError(f"metadata: no scratch folder: {error.strerror}")
        raise refused or trouble or TransientError("no source of metadata is known")

    def _refresh(
        self, source: MetadataSource, cache: FolderMetadata, now: int, floors: TrustFloors
    ) -> Trust:
        fetcher = _Fetcher((source,) if source is cache else (source, _RootsOf(cache)))
        with tempfile.TemporaryDirectory(prefix="edgefleet-tuf-") as scratch:
            updater = self._updater(fetcher, scratch, now=now)
            try:
                trust = self._run(updater, Path(scratch))
            except exceptions.ExpiredMetadataError as error:
                raise Unverified(f"metadata: {error}", reason=Reason.METADATA_EXPIRED) from None
            except exceptions.DownloadLengthMismatchError as error:
                raise Unverified(f"metadata: {error}", reason=Reason.METADATA_INVALID) from None
            except exceptions.DownloadError as error:
                raise TransientError(f"metadata: {error}") from None
            except (exceptions.RepositoryError, ValueError) as error:
                raise Unverified(f"metadata: {error}", reason=Reason.METADATA_INVALID) from None
        role = trust.versions.below(floors)
        if role:
            raise Unverified(
                f"metadata: {role} is version {getattr(trust.versions, role)},"
                f" {getattr(floors, role)} was seen before",
                reason=Reason.METADATA_ROLLBACK,
            )
        if source is not cache:
            self._keep(fetcher.got)
        return trust

    def _updater(self, fetcher: _Fetcher, scratch: str, *, now: int) -> Updater:
        updater = Updater(
            metadata_dir=scratch,
            metadata_base_url="edgefleet:///",
            target_dir=scratch,
            target_base_url="edgefleet:///targets/",
            fetcher=fetcher,
            config=CONFIG,
            bootstrap=self._root,
        )
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        updater._trusted_set.reference_time = moment
        return updater

    def _run(self, updater: Updater, scratch: Path) -> Trust:
        trusted = updater._trusted_set
        updater.refresh()
        targets = trusted.targets.targets
        raw = {
            path: self._target(updater, targets, path, scratch)
            for path in (FLEET_POLICY, REVOKED_POLICY)
        }
        root = trusted.root
        publishers = tuple(
            PublicKey.from_pem(root.keys[key_id].keyval["public"], what="publisher key")
            for key_id in root.roles["targets"].keyids
        )
        return Trust(
            policy=parse_policy(FleetPolicy, raw[FLEET_POLICY], what=FLEET_POLICY),
            revoked=parse_policy(RevokedPolicy, raw[REVOKED_POLICY], what=REVOKED_POLICY),
            publishers=publishers,
            listed={path: Digest(file.hashes["sha256"]) for path, file in targets.items()},
            versions=_versions(trusted),
            expires=min(int(document.expires.timestamp()) for document in trusted),
        )

    @staticmethod
    def _target(
        updater: Updater, targets: dict[str, TargetFile], path: str, scratch: Path
    ) -> bytes:
        found = targets.get(path)
        if found is None or found.length > MAX_TARGET_BYTES:
            raise Unverified(f"metadata: {path} is not listed", reason=Reason.METADATA_INVALID)
        raw = Path(updater.download_target(found, str(scratch / "target"))).read_bytes()
        assert sha256(raw) == found.hashes["sha256"]  # python-tuf verified it
        return raw

    def _keep(self, documents: dict[str, bytes]) -> None:
        """Cache what was accepted; a cut in the middle leaves a cache that does not verify.

        Trust hangs on the floors in the journal, not on the cache: a disk that cannot take it
        costs the start without a network, and nothing else.
        """
        try:
            for name, raw in sorted(
                documents.items(), key=lambda item: item[0] == "timestamp.json"
            ):
                path = self._folder / name
                self._fs.mkdir(path.parent)
                if not path.exists() or path.read_bytes() != raw:
                    write_durably(self._fs, path, raw)
        except OSError as error:
            log.warning("metadata cannot be cached in %s: %s", self._folder, error.strerror)


def _versions(trusted: TrustedMetadataSet) -> TrustFloors:
    """What was verified so far; 0 for a role that was not."""
    version = {document.type: document.version for document in trusted}
    if max(version.values()) >= canonical.MAX_INT:
        raise Unverified("metadata: a version of 2^53 or more", reason=Reason.METADATA_INVALID)
    roles = trusted.root.roles
    online = {*roles[Timestamp.type].keyids, *roles[Snapshot.type].keyids}
    return TrustFloors(
        version[Root.type],
        version.get(Timestamp.type, 0),
        version.get(Snapshot.type, 0),
        version.get(Targets.type, 0),
        online=tuple(sorted(online)),
        publishers=tuple(sorted(roles[Targets.type].keyids)),
    )


class _RootsOf:
    """The root chain of the cache, and nothing else of it: freshness is the source's to prove."""

    def __init__(self, cache: FolderMetadata) -> None:
        self._cache = cache

    def read(self, name: str, max_bytes: int) -> Iterator[bytes]:
        """See `MetadataSource`."""
        if not name.endswith(".root.json"):
            raise KeyError(name)
        yield from self._cache.read(name, max_bytes)
