"""Where hostile inputs are tried: keys, a good bundle, a server, and a device with a model.

`version 1` is installed and must stay; `version 2` is what an attacker makes something of. The
attacker is given the most that a class leaves open: where the parser is what must refuse, the
publisher's key signed the hostile bytes and a director named them.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.device import Installed
from edgefleet_agent.ports import Choice, ModelSpec
from edgefleet_agent.runtime.golden import read_golden
from edgefleet_agent.runtime.loading import golden_source, job_for, read_file
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract import bundle as b
from edgefleet_contract import messages
from edgefleet_contract.directory import verify_directory
from edgefleet_contract.envelope import pae
from edgefleet_contract.keys import KeyRing, PrivateKey
from edgefleet_contract.model_signature import PAYLOAD_TYPE, open_bundle
from edgefleet_contract.orders import Order, Target
from tests.agent.board import DIRECTOR
from tests.agent.bundles import PUBLISHER, make_bundle
from tests.agent.sealing import new_seal_key
from tests.contract.makers import order_of, target_of
from tests.hostile.attempts import files_below
from tests.hostile.liars import Liar, lying

BLOCK_S = 0.4


class Ground:
    """All that attempts share; everything below `folder` goes when the block ends."""

    def __init__(self, folder: Path, liar: Liar) -> None:
        self.folder = folder
        self.liar = liar
        self.publisher, self.director = PUBLISHER, DIRECTOR
        self.stranger = PrivateKey.generate_p256()
        self.ring = KeyRing([PUBLISHER.public])
        self.director_ring = KeyRing([DIRECTOR.public])
        self.old, self.good = (make_bundle(folder, version) for version in (1, 2))
        self.manifest = (self.good / b.MANIFEST).read_bytes()
        self.signature = (self.good / b.SIGNATURE).read_bytes()
        self.blobs = blobs_of(self.old) | blobs_of(self.good)
        self.seal_key, self.unseal = new_seal_key(folder / "seal")
        self._count = itertools.count()

    @cached_property
    def order(self) -> Order:
        return order_of(target_of(self.good), seq=7)

    @cached_property
    def sealed(self) -> bytes:
        return messages.seal_order(self.order, self.director)

    # --- a device without its link -----------------------------------------------------------

    @cached_property
    def store(self) -> Path:
        """The folder of a store in which version 1 is installed."""
        self.liar.blobs = dict(self.blobs)
        arrival = self._bundles.bring(target_of(self.old), (self.liar.url,), lambda *_: None)
        self._kept = arrival.installed
        return self.folder / "device"

    @cached_property
    def _bundles(self) -> Bundles:
        store = Store(self.folder / "device")
        return Bundles(
            store=store,
            fetcher=Mover(store, [HttpChunks(block_s=BLOCK_S)]),
            publishers=lambda: self.ring,
            choose=lambda manifest: Choice(manifest.variants[0], "onnxruntime"),
            hw="x86-64",
            unseal=self.unseal,
        )

    _kept: Installed

    def on_disk(self) -> object:
        """What the device has on its disk."""
        return files_below(self.store)

    def bring(
        self,
        manifest: bytes | None = None,
        signature: bytes | None = None,
        *,
        blobs: dict[str, bytes] | None = None,
        max_bytes: int = 10_000_000,
    ) -> object:
        """The bundle that these documents describe, fetched into the store; its digest.

        Afterwards the device collects its garbage, as it does at the end of each install.
        """
        manifest = self.manifest if manifest is None else manifest
        signature = self.signature if signature is None else signature
        assert self.store
        self.liar.blobs = {
            **self.blobs,
            b.sha256(manifest): manifest,
            b.sha256(signature): signature,
            **(blobs or {}),
        }
        target = Target(
            "digits", "digits", 2, b.sha256(manifest), b.sha256(signature), max_bytes=max_bytes
        )
        return self._fetch(target)

    def bring_sealed(self, target: Target, blobs: dict[str, bytes]) -> object:
        """A sealed bundle, fetched into the store and opened; the digest of the model in it."""
        assert self.store
        self.liar.blobs = {**self.blobs, **blobs}
        return self._fetch(target, opened=True)

    def _fetch(self, target: Target, *, opened: bool = False) -> object:
        try:
            arrival = self._bundles.bring(target, (self.liar.url,), lambda *_: None)
            if opened:
                return opened_by_a_child(self._bundles.spec(arrival.installed))
        finally:
            self._bundles.collect((self._kept,))
        return arrival.installed.target.bundle_sha256

    # --- a directory -------------------------------------------------------------------------

    def copy(self) -> Path:
        """A fresh copy of the good bundle's directory."""
        folder = self.folder / f"copy-{next(self._count)}"
        shutil.copytree(self.good, folder / self.good.name)
        return folder / self.good.name

    def verify(self, manifest: bytes | None = None, signature: bytes | None = None) -> object:
        """The good directory with other documents, verified; its digest."""
        folder = self.copy()
        try:
            (folder / b.MANIFEST).write_bytes(self.manifest if manifest is None else manifest)
            (folder / b.SIGNATURE).write_bytes(self.signature if signature is None else signature)
            return verify_directory(folder, self.ring).digest
        finally:
            shutil.rmtree(folder.parent)

    def open(self, manifest: bytes | None = None, signature: bytes | None = None) -> object:
        """The documents of a bundle, opened; its digest."""
        manifest = self.manifest if manifest is None else manifest
        signature = self.signature if signature is None else signature
        return open_bundle(manifest, signature, self.ring).digest

    @property
    def digest(self) -> object:
        """The identity of the good bundle: what a harmless mutant still is."""
        return b.sha256(self.manifest)

    # --- documents by somebody who has the keys ----------------------------------------------

    @property
    def statement(self) -> dict[str, Any]:
        """What the good `model.sig` states, to be changed."""
        envelope = json.loads(self.signature)["dsseEnvelope"]
        found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
        return found

    def sign_statement(self, statement: object, key: PrivateKey | None = None) -> bytes:
        """A `model.sig` over any statement."""
        return self.wrap(json.dumps(statement).encode(), key or self.publisher)

    def wrap(self, payload: bytes, key: PrivateKey) -> bytes:
        """A `model.sig` over any payload."""
        document = json.loads(self.signature)
        signature = key.sign(pae(PAYLOAD_TYPE, payload))
        document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        document["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
        hint = hashlib.sha256(key.public.pem.encode()).hexdigest()
        document["verificationMaterial"]["publicKey"]["hint"] = hint
        return json.dumps(document).encode()

    def sign(self, manifest: bytes) -> bytes:
        """A `model.sig` by the publisher over a `bundle.json` that may be anything."""
        try:
            value = json.loads(manifest)
            files = {file["path"]: file["sha256"] for file in value["files"]}
            name = f"{value['model']}-{value['version']}"
        except (ValueError, KeyError, TypeError, RecursionError):
            files, name = {}, "digits-2"
        files[b.MANIFEST] = b.sha256(manifest)
        return self.sign_statement(state(self.statement, files, name))


def opened_by_a_child(spec: ModelSpec) -> object:
    """The digest of the model that a child has in its memory; raises what it refuses."""
    job = job_for(spec, threads=1)
    read_golden(golden_source(job), job.variant)
    return b.sha256(read_file(job, job.variant.model))


def state(statement: dict[str, Any], files: dict[str, str], name: str) -> dict[str, Any]:
    """A statement about other files, its root digest computed."""
    root = hashlib.sha256()
    for path in sorted(files):
        with suppress(ValueError, TypeError):
            root.update(bytes.fromhex(files[path]))
    statement["predicate"]["resources"] = [
        {"name": path, "digest": files[path], "algorithm": "sha256"} for path in sorted(files)
    ]
    statement["subject"] = [{"name": name, "digest": {"sha256": root.hexdigest()}}]
    return statement


def blobs_of(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle and its chunk list, by digest."""
    found: dict[str, bytes] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            found |= {b.sha256(raw): raw, b.sha256(b.chunk_list(raw)): b.chunk_list(raw)}
    return found


@contextmanager
def ground() -> Iterator[Ground]:
    """A ground, for as long as the block lasts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        yield Ground(folder, stack.enter_context(lying()))
