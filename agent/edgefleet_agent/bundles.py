"""From an order's target to a model that can be run: fetch, verify, choose, store.

The order of the checks is the acceptance of the design, steps 4 to 6: documents by digest, the
publisher's signature, what the bundle says against what the order said, room on the disk, then the
files of the one variant that this board runs, by a delta from the release that it has or whole. The
first failure refuses; nothing that was not verified is ever stored under its digest.

Of a sealed bundle the store holds the sealed blobs that its index names, and never a file in the
clear: the keys go to the child that opens them (`runtime/loading.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from edgefleet_agent.adapters.store import Store
from edgefleet_agent.delta import Updates, old_files
from edgefleet_agent.device import Installed
from edgefleet_agent.ports import Choice, Failed, Fetcher, ModelSpec, Moved, StoredFile
from edgefleet_agent.unsealing import Unsealer, file_seal, no_key
from edgefleet_contract import __version__ as agent_version
from edgefleet_contract.bundle import (
    BundleFile,
    Digest,
    Manifest,
    parse_manifest,
    parse_version,
)
from edgefleet_contract.canonical import MAX_BYTES
from edgefleet_contract.errors import DeviceError, PeerError, TransientError
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.model_signature import MAX_BYTES as MAX_SIGNATURE_BYTES
from edgefleet_contract.model_signature import open_bundle
from edgefleet_contract.orders import Sealed, Target
from edgefleet_contract.reasons import Reason
from edgefleet_contract.sealed import Dek
from edgefleet_contract.sealed_index import SealedFile, SealedIndex, check_index, parse_index

Chooser: TypeAlias = Callable[[Manifest], Choice | Failed]
Progress: TypeAlias = Callable[[Target, int, int], None]
"""Called with the target, the bytes that are in the store, and the bytes there will be."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A model that is in the store, verified; `transferred` counts the bytes of whole files."""

    installed: Installed
    transferred: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """How the files of a target lie in the store: under their own digests, or sealed."""

    target: Target
    index: SealedIndex | None = None
    dek: Dek | None = None

    def file(self, store: Store, file: BundleFile) -> StoredFile:
        """Where a file lies, and how it is opened."""
        path = store.path(_digest_of(self.index, file))
        seal = file_seal(self.dek, self.target, file) if self.dek else None
        return StoredFile(str(path), file.sha256, seal)


def _digest_of(index: SealedIndex | None, file: BundleFile) -> Digest:
    """Under which digest a file lies in the store."""
    return index.file(file.path).sha256 if index else file.sha256


class Bundles:
    """The bundles of one device. `publishers` gives the keys that may sign for it, `unseal` the
    keys of sealed ones."""

    def __init__(
        self,
        *,
        store: Store,
        fetcher: Fetcher,
        publishers: Callable[[], KeyRing],
        choose: Chooser,
        hw: str,
        unseal: Unsealer = no_key,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._publishers = publishers
        self._choose = choose
        self._hw = hw
        self._unseal = unseal
        self._updates = Updates(store, fetcher)

    def bring(
        self,
        target: Target,
        sources: tuple[str, ...],
        progress: Progress,
        *,
        serving: Iterable[Installed] = (),
    ) -> Arrival:
        """Put all files that this board needs of a bundle into the store.

        What is in the store of the models that are `serving` may save bytes.

        Raises:
            PeerError: the bundle is refused; its reason says why.
            DeviceError: NO_SPACE, STORAGE_FAILED, NO_VARIANT, WRONG_HARDWARE or AGENT_TOO_OLD;
                UNSEALING_FAILED where this device has no key.
            TransientError: try again later; what arrived is kept. AllowanceSpent, where it is.
        """
        name = f"{target.model}@{target.version}"
        documents = self._documents(target, sources, name)
        publishers = self._publishers()
        if not publishers:
            raise TransientError(f"{name}: what the publishers say is not known at present")
        bundle = open_bundle(*documents, publishers)
        manifest = bundle.manifest
        self._check(target, manifest, name)
        choice = self._choose(manifest)
        if isinstance(choice, Failed):
            raise DeviceError(f"{name}: {choice.detail}", reason=choice.reason)
        variant = choice.variant
        kept = dict(zip((target.bundle_sha256, target.signature_sha256), documents, strict=True))
        files: tuple[BundleFile | SealedFile, ...] = manifest.files_for(variant)
        if target.sealed is None:
            old = old_files(self._store, target.model, serving)
        else:
            old = {}  # two sealings of one file have nothing in common
            raw, index = self._bring_index(target, target.sealed, manifest, sources, name)
            kept[target.sealed.index_sha256] = raw
            files = tuple(index.file(file.path) for file in files)
        missing = [file for file in files if not self._store.has(file.sha256)]
        self._store.require_space(sum(file.size for file in missing))
        total = sum(file.size for file in files)
        done = total - sum(file.size for file in missing)
        transferred = 0
        for file in missing:
            what = f"{name}/{file.path}"

            def told(size: int, before: int = done) -> None:
                progress(target, before + size, total)

            if file.path not in old or not self._updates.make(
                old[file.path],
                file.sha256,
                size=file.size,
                needed=total - done,
                sources=sources,
                what=what,
                progress=told,
            ):
                transferred += self._fetcher.fetch_file(
                    file.sha256,
                    size=file.size,
                    chunk_list_sha256=file.chunk_list_sha256,
                    sources=sources,
                    what=what,
                    progress=told,
                )
            done += file.size
        for digest, raw in kept.items():
            if not self._store.has(digest):
                self._store.put(digest, raw)
        installed = Installed(target, variant.name, choice.engine, choice.why)
        return Arrival(installed, transferred)

    def spec(self, installed: Installed) -> ModelSpec:
        """What is needed to run a model that is in the store; a sealed one is opened with what the
        journal kept of its order, so no fleet is asked.

        Raises:
            DeviceError: STORAGE_FAILED, where the store lost something of it.
            PeerError, DeviceError: UNSEALING_FAILED, where it was sealed for another key.
        """
        target = installed.target
        manifest = parse_manifest(self._store.read(target.bundle_sha256))
        variant = next(item for item in manifest.variants if item.name == installed.variant)
        stored = self._stored(target)
        files = manifest.files_for(variant)
        return ModelSpec(
            slot=target.slot,
            model=target.model,
            version=target.version,
            bundle_sha256=target.bundle_sha256,
            variant=variant,
            engine=installed.engine,
            files={file.path: stored.file(self._store, file) for file in files},
            labels=manifest.labels or "",
            limits=variant.limits.get(self._hw),
        )

    def check(self, installed: Installed) -> None:
        """Read every file of a model that is in the store, and hold it against its digest.

        A file that has changed is removed, so that it is fetched again.

        Raises:
            DeviceError: STORAGE_FAILED, naming what is missing or changed.
        """
        needed = self._digests((installed,)) or {installed.target.bundle_sha256}
        for digest in sorted(needed):
            self._store.check(digest)

    def allow(self, max_bytes: int | None, *, max_bytes_per_s: int) -> None:
        """From now on so many bytes may come over the uplink, so fast; None and 0: any."""
        self._fetcher.allow(max_bytes, max_bytes_per_s=max_bytes_per_s)

    def take_moved(self) -> Moved:
        """The bytes that came since this was asked last."""
        saved, self._updates.saved = self._updates.saved, 0
        return replace(self._fetcher.take_moved(), saved=saved)

    def cancel(self) -> None:
        """End the `bring` that runs in another thread: it raises `Canceled`."""
        self._fetcher.cancel()

    def resume(self) -> None:
        """Allow `bring` again."""
        self._fetcher.resume()

    def collect(self, kept: Iterable[Installed]) -> int:
        """Remove every file that none of these models needs; the number of files removed.

        None are where the disk does not say what they need.
        """
        needed = self._digests(kept)
        return 0 if needed is None else self._store.collect(needed)

    def _digests(self, kept: Iterable[Installed]) -> set[Digest] | None:
        found: set[Digest] = set()
        for installed in kept:
            target = installed.target
            found |= {target.bundle_sha256, target.signature_sha256}
            found |= {target.sealed.index_sha256} if target.sealed else set()
            try:
                manifest = parse_manifest(self._store.read(target.bundle_sha256))
                index = self._index(target.sealed) if target.sealed else None
            except (DeviceError, PeerError):
                if self._store.has(target.bundle_sha256):
                    return None  # the disk would not read it now: it may at the next start
                continue  # it cannot be served either: nothing more is known to keep
            for variant in manifest.variants:
                if variant.name == installed.variant:
                    files = manifest.files_for(variant)
                    found |= {_digest_of(index, file) for file in files}
        return found

    def _bring_index(
        self,
        target: Target,
        sealed: Sealed,
        manifest: Manifest,
        sources: tuple[str, ...],
        name: str,
    ) -> tuple[bytes, SealedIndex]:
        """Which blobs the files of a sealed bundle are. What cannot be opened is not fetched."""
        self._unseal(target, sealed)
        what = f"{name}/sealed index"
        if self._store.has(sealed.index_sha256):
            raw = self._store.read(sealed.index_sha256)
        else:
            raw = self._fetcher.fetch(
                sealed.index_sha256, max_bytes=MAX_BYTES, sources=sources, what=what
            )
        index = parse_index(raw, what=what)
        check_index(index, target.bundle_sha256, manifest, what=what)
        return raw, index

    def _index(self, sealed: Sealed) -> SealedIndex:
        return parse_index(self._store.read(sealed.index_sha256))

    def _stored(self, target: Target) -> _Stored:
        if target.sealed is None:
            return _Stored(target)
        return _Stored(target, self._index(target.sealed), self._unseal(target, target.sealed))

    def _documents(
        self, target: Target, sources: tuple[str, ...], name: str
    ) -> tuple[bytes, bytes]:
        wanted = (
            (target.bundle_sha256, MAX_BYTES, "bundle.json"),
            (target.signature_sha256, MAX_SIGNATURE_BYTES, "model.sig"),
        )
        manifest, signature = (
            self._store.read(digest)
            if self._store.has(digest)
            else self._fetcher.fetch(
                digest, max_bytes=most, sources=sources, what=f"{name}/{document}"
            )
            for digest, most, document in wanted
        )
        return manifest, signature

    def _check(self, target: Target, manifest: Manifest, name: str) -> None:
        if (manifest.model, manifest.version) != (target.model, target.version):
            raise PeerError(
                f"the order says {name}, the bundle {manifest.model}@{manifest.version}",
                reason=Reason.BUNDLE_MISMATCH,
            )
        if manifest.total_size > target.max_bytes:
            raise PeerError(
                f"{name}: {manifest.total_size} bytes, the order allows {target.max_bytes}",
                reason=Reason.TOO_LARGE,
            )
        if parse_version(manifest.agent_min) > parse_version(agent_version):
            raise DeviceError(
                f"{name} needs agent {manifest.agent_min}, this is {agent_version}",
                reason=Reason.AGENT_TOO_OLD,
            )
