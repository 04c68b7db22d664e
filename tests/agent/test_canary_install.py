"""A canary as a step of an install: the real machine, journal and host."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np

from edgefleet_contract.order_policy import Canary, Policy
from edgefleet_contract.orders import Order
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import Board
from tests.agent.bundles import make_bundle, put
from tests.agent.models import WEIGHTS, pixels
from tests.agent.shelf import Shelf
from tests.contract.makers import order_of

LONG = Canary(600, share_percent=50)


def order(shelf: Shelf, folder: Path, version: int, canary: Canary | None = None) -> Order:
    """An order by its version's number."""
    target = put(shelf, make_bundle(folder, version))
    policy = Policy(probation_s=0, canary=canary)
    return order_of(target, seq=version, sources=(shelf.url,), policy=policy)


async def candidate(board: Board) -> int:
    """The process of the canary, once it is there."""
    await board.until(Phase.CANARY)
    async with asyncio.timeout(30):
        while True:
            if board.host.canary_pids:
                return board.host.canary_pids[0]
            await asyncio.sleep(0.01)


def serves(board: Board, version: int) -> bool:
    """Whether version 1 or 2 answers."""
    status, rows = board.answer()
    return status == 200 and np.allclose(rows, pixels(1) @ WEIGHTS + version)


def test_one_that_dies_ends_its_install_and_the_old_model_serves(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        async with Board(tmp_path / "pi") as board:
            assert await board.install(order(shelf, tmp_path, 1)) is Phase.COMMITTED
            second = order(shelf, tmp_path, 2, LONG)
            board.take(second)
            os.kill(await candidate(board), signal.SIGKILL)
            await board.until(Phase.FAILED)
            device = board.installer.device
            assert device.install is not None
            assert device.install.reason is Reason.CANARY_FAILED
            assert device.install.detail == "its worker died"
            assert device.quarantined == (second.targets[0].bundle_sha256,)
            assert serves(board, 1)
            assert board.host.canary_pids == ()

    asyncio.run(story())


def test_one_that_passes_goes_on_to_serve_and_its_figures_are_told(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        async with Board(tmp_path / "pi") as board:
            assert await board.install(order(shelf, tmp_path, 1)) is Phase.COMMITTED
            board.take(order(shelf, tmp_path, 2, Canary(1, share_percent=100, min_requests=1)))
            await candidate(board)
            while board.installer.device.phase is Phase.CANARY:
                assert (await asyncio.to_thread(board.answer))[0] == 200
            await board.until(Phase.COMMITTED)
            assert serves(board, 2)
            told = board.heard.measurements
            assert told["canary_requests"] >= 1
            assert (told["canary_failures"], told["canary_share"]) == (0, 1)

    asyncio.run(story())


def test_one_that_is_asked_too_little_does_not_pass(tmp_path: Path, shelf: Shelf) -> None:
    async def story() -> None:
        async with Board(tmp_path / "pi") as board:
            assert await board.install(order(shelf, tmp_path, 1)) is Phase.COMMITTED
            asked = Canary(1, min_requests=5)
            assert await board.install(order(shelf, tmp_path, 2, asked)) is Phase.FAILED
            assert board.installer.device.install is not None
            assert board.installer.device.install.detail == "it was asked 0 times, 5 are asked for"
            assert serves(board, 1)

    asyncio.run(story())


def test_a_newer_order_takes_the_place_of_one_and_a_start_begins_anew(
    tmp_path: Path, shelf: Shelf
) -> None:
    async def story() -> None:
        async with Board(tmp_path / "pi") as board:
            assert await board.install(order(shelf, tmp_path, 1)) is Phase.COMMITTED
            board.take(order(shelf, tmp_path, 2, LONG))
            await candidate(board)
        async with Board(tmp_path / "pi", board.repository) as board:
            assert serves(board, 1)
            await candidate(board)  # it is verified, tried and routed once more
            third = order(shelf, tmp_path, 3)
            assert await board.install(third) is Phase.COMMITTED
            assert board.host.canary_pids == ()
            assert [model.version for model in board.installer.running] == [3]

    asyncio.run(story())
