"""A whole device under attack: what served keeps serving, and nothing of the new stays on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_contract import bundle as b
from edgefleet_contract import messages
from edgefleet_contract.errors import PeerError
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Board
from tests.agent.bundles import PUBLISHER, make_bundle
from tests.agent.models import HERE, WEIGHTS, pixels
from tests.contract.makers import order_of, target_of
from tests.hostile.attempts import Attempt, files_below, hostile
from tests.hostile.ground import Ground, blobs_of


class Victim:
    """A board with version 1 committed; `attack` is an order, or bytes that should be one."""

    def __init__(self, ground: Ground, name: str = "board") -> None:
        self._ground = ground
        self._loop = asyncio.new_event_loop()
        self._board = Board(ground.folder / name, unseal=ground.unseal)
        self._seq = 1
        ground.liar.blobs |= blobs_of(ground.old)
        self._loop.run_until_complete(self._board.__aenter__())
        self._board.installer._trial_timeout_s = 3.0
        first = order_of(target_of(ground.old), seq=1, sources=(ground.liar.url,))
        ended = self._loop.run_until_complete(self._board.install(self._timely(first)))
        assert ended is Phase.COMMITTED

    def close(self) -> None:
        self._loop.run_until_complete(self._board.__aexit__())
        self._loop.close()

    def state(self) -> object:
        """What serves, what is committed, and every file of the store."""
        status, rows = self._board.answer()
        assert status == 200
        is_old = bool(np.allclose(rows, pixels(1) @ WEIGHTS + 1))  # type: ignore[arg-type] # rows of numbers
        return is_old, self._board.installer.device.slots, files_below(self._board.folder / "store")

    def attack(self, target: Target, blobs: dict[str, bytes], **more: object) -> object:
        """Order it as a thief of the director's key would, and released by the publishers."""
        self._seq += 1
        fields: dict[str, object] = {"seq": self._seq, "sources": (self._ground.liar.url,), **more}
        self._ground.liar.blobs = {**self._ground.blobs, **blobs}
        return self._loop.run_until_complete(self._install(order_of(target, **fields)))  # type: ignore[arg-type] # makers

    def send(self, raw: bytes) -> object:
        """Bytes on the topic of orders; raises what the board said to them."""
        return self._loop.run_until_complete(self._send(raw))

    def _timely(self, order: Order) -> Order:
        now = int(self._board.now)
        return replace(order, issued=now, expires=now + 86_400)

    async def _install(self, order: Order) -> object:
        ended = await self._board.install(self._timely(order))
        _, reason, detail = self._board.heard.steps[-1]
        # One thing at a time: once it has refused this, it has tidied up after the install.
        await self._hear(b"settled %d" % order.seq)
        if ended is Phase.COMMITTED or reason is None:
            return ended
        raise PeerError(f"{ended}: {detail}", reason=reason)

    async def _send(self, raw: bytes) -> object:
        phase, reason, detail = await self._hear(raw)
        if reason is None:
            return phase
        raise PeerError(detail, reason=reason)

    async def _hear(self, raw: bytes) -> tuple[Phase, Reason | None, str]:
        heard = self._board.heard
        before = len(heard.steps)
        self._board.installer.order_arrived(raw)
        async with asyncio.timeout(20):
            while len(heard.steps) == before:
                heard.changed.clear()
                await heard.changed.wait()
        return heard.steps[-1]


@hostile(
    "boards",
    Reason.UNKNOWN_KEY,
    Reason.GOLDEN_MISMATCH,
    Reason.LOAD_FAILED,
    Reason.TRIAL_CRASHED,
    Reason.MALFORMED,
    Reason.DIGEST_MISMATCH,
    Reason.NOT_FOUND,
    Reason.BUNDLE_MISMATCH,
    Reason.TOO_LARGE,
    Reason.WRONG_DEVICE,
    Reason.STALE_ORDER,
    Reason.ORDER_EXPIRED,
    Reason.DOWNGRADE,
    Reason.BAD_SIGNATURE,
    sample=8,
)
def boards(ground: Ground) -> Iterator[Attempt]:
    """Whole installs, each hostile in another way, on one device that serves all the while."""
    victim = Victim(ground)
    try:
        yield from _attacks(ground, victim)
    finally:
        victim.close()


def _attacks(ground: Ground, victim: Victim) -> Iterator[Attempt]:
    folder = ground.folder / "attacks"
    linear = (HERE / "linear2.onnx").read_bytes()

    def attempt(name: str, made: Path, spoil: dict[str, bytes] | None = None) -> Attempt:
        target, blobs = target_of(made), {**blobs_of(made), **(spoil or {})}
        return Attempt(name, lambda: victim.attack(target, blobs), trace=victim.state)

    yield attempt("a stranger's", make_bundle(folder / "a", 2, key=PrivateKey.generate_p256()))
    yield attempt("lying golden outputs", make_bundle(folder / "b", 3, golden_off=0.5))
    yield attempt("no model", make_bundle(folder / "c", 4, raw=b"\x08\x07 not a model"))
    yield attempt("half a model", make_bundle(folder / "d", 5, raw=linear[:1200]))
    external = (HERE / "external.onnx").read_bytes()
    yield attempt("external data", make_bundle(folder / "e", 6, raw=external))
    made = make_bundle(folder / "f", 7, raw=linear)
    model = b.parse_manifest((made / b.MANIFEST).read_bytes()).file("onnx/model.onnx")
    yield attempt("a spoilt model", made, {model.sha256: bytes(len(linear))})
    gone, rest = target_of(made), blobs_of(made)
    del rest[model.sha256]
    yield Attempt("a missing model", lambda: victim.attack(gone, rest), trace=victim.state)
    yield attempt("golden outputs that are a pickle", golden(folder / "g", 8, b"\x80\x04."))
    yield attempt("golden outputs that are nothing", golden(folder / "h", 9, b""))
    good = make_bundle(folder / "i", 10)
    small = replace(target_of(good), max_bytes=10)
    blobs = blobs_of(good)
    yield Attempt("over the order", lambda: victim.attack(small, blobs), trace=victim.state)
    lie = replace(target_of(good), version=11)
    yield Attempt("another version", lambda: victim.attack(lie, blobs), trace=victim.state)
    timely = order_of(target_of(good), seq=10_000, issued=2_000_000_000, expires=2_000_086_400)
    sealed = messages.seal_order(timely, ground.director)
    forged = messages.seal_order(timely, PrivateKey.generate_ed25519())
    for name, raw in {
        "bytes": b"\0" * 100,
        "an unfinished string": b'"' + b'\\"' * 60_000,
        "a forged order": forged,
        "a changed order": sealed.replace(b"A", b"B", 1),
        "half an order": sealed[: len(sealed) // 2],
        "another device's order": messages.seal_order(
            replace(timely, device="pi-2"), ground.director
        ),
        "another fleet's order": messages.seal_order(
            replace(timely, fleet="other"), ground.director
        ),
        "an old order": messages.seal_order(replace(timely, seq=0), ground.director),
        "an expired order": messages.seal_order(
            replace(timely, issued=1, expires=2), ground.director
        ),
        "an order for ever": messages.seal_order(
            replace(timely, issued=1, expires=2**50), ground.director
        ),
    }.items():
        yield Attempt(name, lambda raw=raw: victim.send(raw), trace=victim.state)


def golden(folder: Path, version: int, raw: bytes) -> Path:
    """A signed bundle whose golden outputs are any bytes."""
    made = make_bundle(folder, version)
    manifest = b.parse_manifest((made / b.MANIFEST).read_bytes())
    (made / "onnx" / "golden.npz").write_bytes(raw)
    files = tuple(b.describe_file(made, file.path, file.role) for file in manifest.files)
    document = b.render_manifest(replace(manifest, files=files))
    (made / b.MANIFEST).write_bytes(document)
    (made / b.SIGNATURE).write_bytes(sign_bundle(document, PUBLISHER))
    return made
