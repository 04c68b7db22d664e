"""The whole device but its link: real orders, real downloads, real trials, real serving."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefleet_agent.ports import BoardState
from edgefleet_contract import bundle as b
from edgefleet_contract import messages
from edgefleet_contract.keys import PrivateKey
from edgefleet_contract.order_policy import Conditions, Policy, Window
from edgefleet_contract.phases import Phase
from edgefleet_contract.reasons import Reason
from tests.agent.board import DIRECTOR, Board
from tests.agent.bundles import make_bundle, put
from tests.agent.models import HERE, WEIGHTS, pixels
from tests.agent.shelf import Shelf
from tests.contract.makers import order_of


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
