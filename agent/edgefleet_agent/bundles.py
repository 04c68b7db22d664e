"""From an order's target to a model that can be run: fetch, verify, choose, store.

The order of the checks is the acceptance of the design, steps 4 to 6: documents by digest, the
publisher's signature, what the bundle says against what the order said, room on the disk, then the
files of the one variant that this board runs. The first failure refuses; nothing that was not
verified is ever stored under its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from edgefleet_agent.adapters.store import Store
from edgefleet_agent.device import Installed
from edgefleet_agent.ports import Failed, Fetcher, ModelSpec
from edgefleet_contract import __version__ as agent_version
from edgefleet_contract.bundle import (
    Digest,
    Manifest,
    Variant,
    parse_manifest,
    parse_version,
)
from edgefleet_contract.canonical import MAX_BYTES
from edgefleet_contract.errors import DeviceError, PeerError, TransientError
from edgefleet_contract.keys import KeyRing
from edgefleet_contract.messages import Target
from edgefleet_contract.model_signature import MAX_BYTES as MAX_SIGNATURE_BYTES
from edgefleet_contract.model_signature import open_bundle
from edgefleet_contract.reasons import Reason

Chooser: TypeAlias = Callable[[Manifest], "tuple[Variant, str] | Failed"]
Progress: TypeAlias = Callable[[Target, int, int], None]
"""Called with the target, the bytes that are in the store, and the bytes there will be."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A model that is in the store, verified; `transferred` counts the bytes of the wire."""

    installed: Installed
    transferred: int


class Bundles:
    """The bundles of one device. `publishers` gives the keys that may sign for it."""

    def __init__(
        self,
        *,
        store: Store,
        fetcher: Fetcher,
        publishers: Callable[[], KeyRing],
        choose: Chooser,
        hw: str,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._publishers = publishers
        self._choose = choose
        self._hw = hw

    def bring(self, target: Target, sources: tuple[str, ...], progress: Progress) -> Arrival:
        """Put all files that this board needs of a bundle into the store.

        Raises:
            PeerError: the bundle is refused; its reason says why.
            DeviceError: NO_SPACE, STORAGE_FAILED, NO_VARIANT, WRONG_HARDWARE or AGENT_TOO_OLD.
            TransientError: try again later; what arrived is kept.
        """
        name = f"{target.model}@{target.version}"
        documents = self._documents(target, sources, name)
        publishers = self._publishers()
        if not len(publishers):  # a start without usable metadata: they are asked for again
            raise TransientError(f"{name}: no publisher's key is known yet")
        bundle = open_bundle(*documents, publishers)
        manifest = bundle.manifest
        self._check(target, manifest, name)
        choice = self._choose(manifest)
        if isinstance(choice, Failed):
            raise DeviceError(f"{name}: {choice.detail}", reason=choice.reason)
        variant, engine = choice
        files = manifest.files_for(variant)
        missing = [file for file in files if not self._store.has(file.sha256)]
        self._store.require_space(sum(file.size for file in missing))
        total = sum(file.size for file in files)
        done = total - sum(file.size for file in missing)
        transferred = 0
        for file in missing:
            transferred += self._fetcher.fetch_file(
                file.sha256,
                size=file.size,
                chunk_list_sha256=file.chunk_list_sha256,
                sources=sources,
                what=f"{name}/{file.path}",
                progress=lambda size, before=done: progress(target, before + size, total),  # type: ignore[misc] # mypy cannot infer a lambda's default
            )
            done += file.size
        for digest, raw in zip(
            (target.bundle_sha256, target.signature_sha256), documents, strict=True
        ):
            if not self._store.has(digest):
                self._store.put(digest, raw)
        return Arrival(Installed(target, variant.name, engine), transferred)

    def spec(self, installed: Installed) -> ModelSpec:
        """What is needed to run a model that is in the store.

        Raises:
            DeviceError: STORAGE_FAILED, where the store lost something of it.
        """
        target = installed.target
        manifest = parse_manifest(self._store.read(target.bundle_sha256))
        variant = next(item for item in manifest.variants if item.name == installed.variant)
        model = manifest.file(variant.model)
        labels = manifest.file(manifest.labels) if manifest.labels else None
        return ModelSpec(
            slot=target.slot,
            model=target.model,
            version=target.version,
            bundle_sha256=target.bundle_sha256,
            variant=variant,
            engine=installed.engine,
            model_path=self._store.path(model.sha256),
            model_sha256=model.sha256,
            golden_path=self._store.path(manifest.file(variant.golden).sha256),
            labels_path=self._store.path(labels.sha256) if labels else None,
            limits=variant.limits.get(self._hw),
        )

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
            try:
                manifest = parse_manifest(self._store.read(target.bundle_sha256))
            except (DeviceError, PeerError):
                if self._store.has(target.bundle_sha256):
                    return None  # the disk would not read it now: it may at the next start
                continue  # it cannot be served either: nothing more is known to keep
            for variant in manifest.variants:
                if variant.name == installed.variant:
                    found |= {file.sha256 for file in manifest.files_for(variant)}
        return found

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
