"""The whole device but its link: real orders, real downloads, real trials, real serving."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from edgefleet_agent.adapters.http_chunks import HttpChunks
from edgefleet_agent.adapters.journal import Journal
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.adapters.tuf_client import TufClient
from edgefleet_agent.bundles import Bundles
from edgefleet_agent.identity import Enrolment, Identity
from edgefleet_agent.installer import Installer
from edgefleet_agent.keeper import TrustKeeper
from edgefleet_agent.ports import BoardState, Choice
from edgefleet_agent.runtime.host import LocalHost
from edgefleet_agent.runtime.memory import available_bytes
from edgefleet_agent.serving.config import ServingConfig
from edgefleet_agent.transfer.mover import Mover
from edgefleet_agent.unsealing import Unsealer, no_key
from edgefleet_contract import bundle as b
from edgefleet_contract import messages
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.model_signature import sign_bundle
from edgefleet_contract.order_policy import Conditions, Policy, Window
from edgefleet_contract.orders import Order, Target
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.models import HERE, WEIGHTS, X, Y, linear, pixels
from tests.agent.repository import Repository
from tests.agent.shelf import Shelf, serve
from tests.contract.makers import order_of, target_of

DIRECTOR, PUBLISHER = PrivateKey.generate_ed25519(), PrivateKey.generate_p256()
Assertion = Callable[[], Awaitable[None]]


@dataclass
class Recorder:
    """What the fleet would hear."""

    steps: list[tuple[Phase, Reason | None, str]] = field(default_factory=list)
    measurements: dict[str, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def step(
        self,
        order: Order | None,
        phase: Phase,
        reason: Reason | None,
        detail: str,
        measurements: dict[str, float],
    ) -> None:
        self.steps.append((phase, reason, detail))
        self.measurements |= measurements
        self.changed.set()

    def state(self) -> None:
        self.changed.set()

    def phases(self) -> list[Phase]:
        """The phases passed, each once in a row; progress does not count."""
        found: list[Phase] = []
        for phase, _, _ in self.steps:
            if not found or found[-1] is not phase:
                found.append(phase)
        return found


@dataclass
class Weather:
    """What an install may have to wait for, as a test sets it."""

    state: BoardState = field(default_factory=BoardState)
    is_linked: bool = True

    def now(self) -> BoardState:
        return self.state


class Board:
    """A device in a folder; `boot` starts it, leaving the block cuts its power."""

    def __init__(
        self,
        folder: Path,
        repository: Repository | None = None,
        unseal: Unsealer = no_key,
        *,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self.folder, self.unseal, self.available = folder, unseal, available
        self.repository = repository or Repository(DIRECTOR, PUBLISHER)
        self.heard = Recorder()
        self.surroundings = Weather()
        self.host: LocalHost
        self.installer: Installer

    async def __aenter__(self) -> Board:
        store = Store(self.folder / "store")
        self.heard = Recorder()
        config = ServingConfig(listen=("127.0.0.1:0",))
        self.host = LocalHost(config, available=self.available)
        await self.host.start()
        root = self.repository.root
        self.keeper = TrustKeeper(
            TufClient(self.folder / "trust", root),
            self.folder,
            url="",
            floors=lambda: self.installer.device.trust,
            time_floor=lambda: self.installer.device.time_floor,
            clock=lambda: self.now,
        )
        self.keeper.broker = self.repository  # type: ignore[assignment] # a source like any other
        self.installer = Installer(
            identity=Identity(Enrolment("demo", "pi-1", "x", 1), root, *[Path("/x")] * 3),
            journal=Journal(self.folder),
            keeper=self.keeper,
            bundles=Bundles(
                store=store,
                fetcher=Mover(store, [HttpChunks()]),
                publishers=lambda: self.keeper.publishers,
                choose=lambda manifest: Choice(
                    manifest.variants[0], *manifest.variants[0].runtimes
                ),
                hw="x86-64",
                unseal=self.unseal,
            ),
            host=self.host,
            reporter=self.heard,
            surroundings=self.surroundings,
            look_s=0.05,
            trial_timeout_s=60,
            clock=lambda: self.now,
        )
        started = asyncio.Event()
        self.task = asyncio.create_task(self.installer.run(started))
        await asyncio.wait_for(started.wait(), 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.host.close()

    @property
    def now(self) -> float:
        return self.repository.now.timestamp()

    def take(self, order: Order, *, released: bool = True) -> None:
        if released:
            self.repository.release(*order.targets)
        self.installer.order_arrived(messages.seal_order(order, DIRECTOR))

    async def until(self, *phases: Phase) -> None:
        async with asyncio.timeout(60):
            while not (self.installer.device.phase in phases and self.heard.steps):
                self.heard.changed.clear()
                await self.heard.changed.wait()

    async def install(self, order: Order) -> Phase:
        self.take(order)
        async with asyncio.timeout(60):
            while not (self.at_hand >= order.seq and self.installer.device.phase.is_final):
                self.heard.changed.clear()
                await self.heard.changed.wait()
        return self.installer.device.phase

    @property
    def at_hand(self) -> int:
        """The number of the order that is being carried out, or was last."""
        install = self.installer.device.install
        return install.order.seq if install else 0

    def answer(self, slot: str = "digits") -> tuple[int, object]:
        return self.ask({"instances": pixels(1).tolist()}, slot)

    def ask(self, body: object, slot: str = "digits") -> tuple[int, object]:
        host, _, port = self.host.addresses[0].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("POST", f"/v1/models/{slot}:predict", json.dumps(body))
        response = connection.getresponse()
        value = json.loads(response.read())
        connection.close()
        return response.status, value.get("predictions", value)


def make_bundle(
    root: Path,
    version: int,
    *,
    model: str = "digits",
    key: PrivateKey = PUBLISHER,
    golden_off: float = 0.0,
    raw: bytes | None = None,
    answers: np.ndarray | None = None,
) -> Path:
    """A signed bundle of the linear model that answers x @ W + version (odd 1, even 2).

    Or of `raw`, which gives these answers to three rows of pixels.
    """
    which = 1 + (version + 1) % 2
    folder = root / f"{model}-{version}"
    (folder / "onnx").mkdir(parents=True)
    file = HERE / f"linear{which}.onnx"
    (folder / "onnx" / "model.onnx").write_bytes(raw if raw is not None else file.read_bytes())
    x = pixels(3)
    expected = linear(x, which) if answers is None else answers
    expected = expected + np.float32(golden_off)
    np.savez(folder / "onnx" / "golden.npz", **{"input.0": x, "output.0": expected})
    variant = b.Variant(
        name="onnx",
        format=b.Format.ONNX,
        precision="float32",
        model="onnx/model.onnx",
        golden="onnx/golden.npz",
        max_abs_err_e6=10,
        inputs=(X,),
        outputs=(Y,),
        runtimes={"onnxruntime": "1.0"},
    )
    files = (
        b.describe_file(folder, "onnx/golden.npz", b.Role.GOLDEN),
        b.describe_file(folder, "onnx/model.onnx", b.Role.MODEL),
    )
    document = b.render_manifest(b.Manifest(model, version, 1, "0.1.0", (variant,), files))
    (folder / b.MANIFEST).write_bytes(document)
    (folder / b.SIGNATURE).write_bytes(sign_bundle(document, key))
    return folder


def first_choice(manifest: b.Manifest) -> Choice:
    (variant, *_) = manifest.variants
    return Choice(variant, *variant.runtimes)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with serve() as running:
        yield running


def put(shelf: Shelf, folder: Path) -> Target:
    shelf.put_bundle(folder)
    return target_of(folder)


def test_a_device_installs_serves_and_swaps(tmp_path: Path, shelf: Shelf) -> None:
    async def story() -> None:
        one, two = (put(shelf, make_bundle(tmp_path, version)) for version in (1, 2))
        async with Board(tmp_path / "pi") as board:
            assert board.answer()[0] == 404
            first = order_of(one, seq=1, sources=(shelf.url,))
            assert await board.install(first) is Phase.COMMITTED
            assert board.heard.phases() == [
                Phase.ACCEPTED,
                Phase.DOWNLOADING,
                Phase.VERIFIED,
                Phase.STAGED,
                Phase.SELFTEST,
                Phase.ACTIVATING,
                Phase.PROBATION,
                Phase.COMMITTED,
            ]
            status, rows = board.answer()
            assert status == 200
            assert np.allclose(rows, pixels(1) @ WEIGHTS + 1)
            assert board.heard.measurements["golden_vectors"] == 3
            assert board.heard.measurements["download_bytes"] > 1_000

            second = order_of(two, seq=2, sources=(shelf.url,))
            assert await board.install(second) is Phase.COMMITTED
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 2)
            assert [model.version for model in board.installer.running] == [2]

    asyncio.run(story())


def test_every_bad_bundle_is_refused_with_its_reason_and_the_old_one_serves(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        good = put(shelf, make_bundle(tmp_path, 1))
        stranger = put(shelf, make_bundle(tmp_path, 2, key=PrivateKey.generate_p256()))
        golden = put(shelf, make_bundle(tmp_path, 3, golden_off=0.5))
        broken = put(shelf, make_bundle(tmp_path, 4, raw=b"\x08\x07 not a model"))
        tampered_folder = make_bundle(tmp_path, 5, raw=(HERE / "linear2.onnx").read_bytes() * 2)
        tampered = put(shelf, tampered_folder)
        digest = b.sha256((tampered_folder / "onnx/model.onnx").read_bytes())
        spoilt = bytearray(shelf.blobs[digest])
        spoilt[100] ^= 1
        shelf.blobs[digest] = bytes(spoilt)
        missing = replace(put(shelf, make_bundle(tmp_path, 6)), bundle_sha256=b.Digest("0" * 64))
        cases = [
            (stranger, Reason.UNKNOWN_KEY),
            (golden, Reason.GOLDEN_MISMATCH),
            (broken, Reason.LOAD_FAILED),
            (tampered, Reason.DIGEST_MISMATCH),
            (missing, Reason.NOT_FOUND),
        ]
        async with Board(tmp_path / "pi") as board:
            await board.install(order_of(good, seq=1, sources=(shelf.url,)))
            for seq, (target, reason) in enumerate(cases, 2):
                ended = await board.install(order_of(target, seq=seq, sources=(shelf.url,)))
                assert (ended, board.heard.steps[-1][1]) == (Phase.FAILED, reason)
                assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)
            again = await board.install(order_of(golden, seq=9, sources=(shelf.url,)))
            assert (again, board.heard.steps[-1][1]) == (Phase.REJECTED, Reason.QUARANTINED)

    asyncio.run(story())


class Lagging(dict[str, bytes]):
    """Blobs that are there from the second time on that somebody asks."""

    def __init__(self, late: dict[str, bytes]) -> None:
        super().__init__()
        self.late = late

    def get(self, key: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override] # as it is called
        found = super().get(key, default)
        if found is None and key in self.late:
            self[key] = self.late[key]
        return found


def test_a_mirror_that_lags_behind_costs_a_moment_and_not_the_install(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        made = make_bundle(tmp_path, 1)
        target = put(shelf, made)
        model = b.sha256((made / "onnx/model.onnx").read_bytes())
        lagging = Lagging({model: shelf.blobs.pop(model)})
        lagging.update(shelf.blobs)
        shelf.blobs = lagging
        async with Board(tmp_path / "pi") as board:
            order = order_of(target, seq=1, sources=(shelf.url,))
            assert await board.install(order) is Phase.COMMITTED
        assert shelf.requests.count((model, 0)) == 2

    asyncio.run(story())


def test_a_device_that_loses_power_serves_what_it_had_and_finishes_the_order(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one, two = (put(shelf, make_bundle(tmp_path, version)) for version in (1, 2))
        async with Board(tmp_path / "pi") as board:
            await board.install(order_of(one, seq=1, sources=(shelf.url,)))
            slow = order_of(two, seq=2, sources=(shelf.url,), policy=Policy(probation_s=3_600))
            board.take(slow)
            await board.until(Phase.PROBATION)
        async with Board(tmp_path / "pi") as board:
            await board.until(Phase.PROBATION)
            assert board.heard.steps[0][0] is Phase.ACTIVATING
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 2)

    asyncio.run(story())


def test_a_worker_that_dies_on_probation_brings_the_old_version_back(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        import os
        import signal

        one, two = (put(shelf, make_bundle(tmp_path, version)) for version in (1, 2))
        async with Board(tmp_path / "pi") as board:
            await board.install(order_of(one, seq=1, sources=(shelf.url,)))
            slow = order_of(two, seq=2, sources=(shelf.url,), policy=Policy(probation_s=3_600))
            board.take(slow)
            await board.until(Phase.PROBATION)
            os.kill(board.host.worker_pids["digits"], signal.SIGKILL)
            await board.until(Phase.ROLLED_BACK)
            assert board.heard.steps[-1][1] is Reason.PROBATION_FAILED
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)
            assert board.installer.device.quarantined == (two.bundle_sha256,)

    asyncio.run(story())


def test_a_newer_order_ends_a_download_that_hangs(tmp_path: Path, shelf: Shelf) -> None:
    async def story() -> None:
        one = put(shelf, make_bundle(tmp_path, 1))
        lost = replace(one, version=7, bundle_sha256=b.Digest("1" * 64))
        async with Board(tmp_path / "pi") as board:
            board.take(order_of(lost, seq=1, sources=("http://127.0.0.1:1",)))
            await board.until(Phase.DOWNLOADING)
            began = time.monotonic()
            ended = await board.install(order_of(one, seq=2, sources=(shelf.url,)))
            assert ended is Phase.COMMITTED
            assert time.monotonic() - began < 30

    asyncio.run(story())


def test_a_swap_waits_for_its_conditions_and_the_old_model_serves_meanwhile(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one, two = (put(shelf, make_bundle(tmp_path, version)) for version in (1, 2))
        async with Board(tmp_path / "pi") as board:
            await board.install(order_of(one, seq=1, sources=(shelf.url,)))
            board.surroundings.state = BoardState(on_mains=False)
            asked = Policy(conditions=Conditions(mains=True))
            board.take(order_of(two, seq=2, sources=(shelf.url,), policy=asked))
            async with asyncio.timeout(20):
                while board.heard.steps[-1][2] != "the board runs on battery":
                    board.heard.changed.clear()
                    await board.heard.changed.wait()
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)
            board.surroundings.state = BoardState(on_mains=True)
            await board.until(Phase.COMMITTED)
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 2)

    asyncio.run(story())


def test_an_order_for_a_time_zone_that_is_not_known_here_is_refused(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one = put(shelf, make_bundle(tmp_path, 1))
        asked = Policy(windows=(Window("02:00", 60, "Mars/Olympus_Mons"),))
        async with Board(tmp_path / "pi") as board:
            ended = await board.install(order_of(one, sources=(shelf.url,), policy=asked))
            assert (ended, board.heard.steps[-1][1]) == (
                Phase.REJECTED,
                Reason.POLICY_UNSUPPORTED,
            )

    asyncio.run(story())


def test_a_device_that_must_reach_its_broker_goes_back_where_it_does_not(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one, two = (put(shelf, make_bundle(tmp_path, version)) for version in (1, 2))
        async with Board(tmp_path / "pi") as board:
            board.surroundings.is_linked = False
            await board.install(order_of(one, seq=1, sources=(shelf.url,)))  # offline will do
            asked = Policy(probation_s=0, needs_link_s=1)
            ended = await board.install(order_of(two, seq=2, sources=(shelf.url,), policy=asked))
            assert (ended, board.heard.steps[-1][1]) == (Phase.ROLLED_BACK, Reason.LINK_LOST)
            assert np.allclose(board.answer()[1], pixels(1) @ WEIGHTS + 1)
            assert board.installer.device.quarantined == ()  # it is not the model's fault

    asyncio.run(story())


def test_a_staged_file_that_rots_is_fetched_again_before_it_is_tried(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one = put(shelf, make_bundle(tmp_path, 1))
        state = tmp_path / "pi"
        async with Board(state) as board:
            board.surroundings.state = BoardState(on_mains=False)
            asked = Policy(conditions=Conditions(mains=True))
            board.take(order_of(one, sources=(shelf.url,), policy=asked))
            await board.until(Phase.WAIT_WINDOW)
        model = max((state / "store" / "blobs").iterdir(), key=lambda path: path.stat().st_size)
        model.chmod(0o600)
        model.write_bytes(b"\0" + model.read_bytes()[1:])
        async with Board(state, board.repository) as board:
            await board.until(Phase.COMMITTED)
            assert Phase.DOWNLOADING in board.heard.phases()
            assert board.answer()[0] == 200

    asyncio.run(story())


def test_two_models_of_one_order_come_together_and_a_dropped_one_goes(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one = put(shelf, make_bundle(tmp_path, 1))
        other = put(shelf, make_bundle(tmp_path, 2, model="vad"))
        bad = put(shelf, make_bundle(tmp_path, 3, model="bad", golden_off=1.0))
        async with Board(tmp_path / "pi") as board:
            source = (shelf.url,)
            pair = order_of(one, replace(other, slot="vad"), seq=1, sources=source)
            assert await board.install(pair) is Phase.COMMITTED
            assert (board.answer()[0], board.answer("vad")[0]) == (200, 200)
            both = order_of(one, replace(bad, slot="vad"), seq=2, sources=source)
            assert await board.install(both) is Phase.FAILED
            assert np.allclose(board.answer("vad")[1], pixels(1) @ WEIGHTS + 2)
            assert await board.install(order_of(one, seq=3, sources=source)) is Phase.COMMITTED
            async with asyncio.timeout(20):  # committed first, stopped after
                while board.answer("vad")[0] != 404:
                    board.heard.changed.clear()
                    await board.heard.changed.wait()
            assert board.answer()[0] == 200

    asyncio.run(story())


def test_orders_that_are_not_for_us_are_refused_once_and_change_nothing(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        one = put(shelf, make_bundle(tmp_path, 1))
        async with Board(tmp_path / "pi") as board:
            await board.install(order_of(one, seq=5, sources=(shelf.url,)))
            before = board.installer.device
            stranger = PrivateKey.generate_ed25519()
            forged = messages.seal_order(order_of(one, seq=6), stranger)
            heard = len(board.heard.steps)
            for raw in (forged, forged, messages.seal_order(order_of(one, seq=4), DIRECTOR)):
                board.installer.order_arrived(raw)
            board.take(order_of(one, seq=6, device="pi-2"))
            async with asyncio.timeout(20):
                while len(board.heard.steps) < heard + 3:
                    board.heard.changed.clear()
                    await board.heard.changed.wait()
            assert [reason for _, reason, _ in board.heard.steps[heard:]] == [
                Reason.UNKNOWN_KEY,
                Reason.STALE_ORDER,
                Reason.WRONG_DEVICE,
            ]
            assert board.installer.device == before

    asyncio.run(story())
