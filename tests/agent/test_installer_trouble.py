"""What goes wrong in the middle: power, files, workers, mirrors, links. Nothing is pretended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_agent.ports import BoardState
from edgefleet_contract import bundle as b
from edgefleet_contract.order_policy import Conditions, Policy
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Board
from tests.agent.bundles import make_bundle, put
from tests.agent.models import WEIGHTS, pixels
from tests.agent.shelf import Shelf
from tests.contract.makers import order_of


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
