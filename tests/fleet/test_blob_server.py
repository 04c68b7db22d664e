"""Blocks for devices: in turn, bounded, and only what the shelf has."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet_contract.blocks import BlobRequest, Block, Status
from edgefleet_contract.bundle import Digest, sha256
from edgefleet_contract.errors import TransientError
from edgefleet_contract.messages import render
from edgefleet_contract.reported import Presence
from edgefleet_contract.topics import Channel, match, topic
from edgefleet_fleet.adapters.file_shelf import FileShelf
from edgefleet_fleet.blob_server import PER_DEVICE, BlobServer
from edgefleet_fleet.deltas import SOON_S
from edgefleet_fleet.ports import Incoming
from tests.fleet.stage import FLEET

RAW = bytes(range(256)) * 4000
DIGEST = sha256(RAW)


class NoDeltas:
    """As of a fleet that made none."""

    path: Path | None = None
    coming = False

    def find(self, old: Digest, new: Digest) -> Path | None:
        return self.path

    def is_coming(self, old: Digest, new: Digest) -> bool:
        return self.coming


@pytest.fixture
def shelf(tmp_path: Path) -> FileShelf:
    made = FileShelf(tmp_path)
    made.prepare()
    made.put(DIGEST, io.BytesIO(RAW), max_bytes=len(RAW))
    return made


def wish(
    device: str, *offsets: int, number: int = 1, sha: str = DIGEST, base: Digest | None = None
) -> Incoming:
    request = BlobRequest(device, number, Digest(sha), 1000, offsets, base)
    return Incoming(topic(FLEET, device, Channel.BLOB_GET), render(request))


def served(server: BlobServer, count: int) -> list[tuple[str, Block]]:
    """The first answers that are sent."""

    async def go() -> list[tuple[str, Block]]:
        sent: list[tuple[str, Block]] = []
        enough = asyncio.Event()

        async def send(where: str, payload: bytes) -> None:
            address = match(where)
            assert address.channel is Channel.BLOB_DATA
            sent.append((address.device, Block.parse(payload)))
            if len(sent) >= count:
                enough.set()

        task = asyncio.create_task(server.run(send))
        async with asyncio.timeout(5):
            await enough.wait()
        task.cancel()
        return sent

    return asyncio.run(go())


def test_each_offset_is_answered_with_its_bytes_and_the_size(shelf: FileShelf) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    server.ask(wish("a", 0, 5000, len(RAW) - 10))
    blocks = [block for _, block in served(server, 3)]
    assert [(block.offset, block.size) for block in blocks] == [
        (0, len(RAW)),
        (5000, len(RAW)),
        (len(RAW) - 10, len(RAW)),
    ]
    for block in blocks:
        assert block.data == RAW[block.offset : block.offset + 1000]
    assert server.sent == {"blocks": 3, "bytes": 2010}


def test_who_asks_for_little_does_not_wait_for_who_asks_for_much(shelf: FileShelf) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    server.ask(wish("much", *range(0, 40_000, 1000)))
    server.ask(wish("little", 0, 1000))
    first = [device for device, _ in served(server, 5)][:5]
    assert first == ["much", "little", "much", "little", "much"]


def test_what_waits_for_one_device_is_bounded_and_the_same_block_waits_once(
    shelf: FileShelf,
) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    for _ in range(3):
        server.ask(wish("a", *range(0, 64_000, 1000)))
    server.ask(wish("a", *range(64_000, 128_000, 1000)))
    server.ask(wish("b", 7))
    answers = served(server, PER_DEVICE + 1)
    assert len({block.offset for device, block in answers if device == "a"}) == PER_DEVICE


def test_a_new_transfer_of_a_device_ends_the_one_before(shelf: FileShelf) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    server.ask(wish("a", *range(0, 50_000, 1000), number=1))
    server.ask(wish("a", 3000, number=2))
    server.ask(wish("b", 1, 2))
    answers = served(server, 3)
    assert [(device, block.request) for device, block in answers] == [("a", 2), ("b", 1), ("b", 1)]


def test_a_device_is_told_to_come_back_while_nobody_knows_what_it_may_have(
    shelf: FileShelf,
) -> None:
    class Silent:
        """A library whose data base does not answer."""

        def size(self, digest: Digest) -> int | None:
            raise TransientError("the data base does not answer")

        read = shelf.read

    server = BlobServer(Silent(), NoDeltas(), fleet=FLEET)
    server.ask(wish("a", 0))
    ((_, block),) = served(server, 1)
    assert (block.status, block.wait_s) == (Status.BUSY, 30)


def test_a_digest_that_is_not_on_the_shelf_is_refused_at_once(shelf: FileShelf) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    server.ask(wish("a", 0, sha=sha256(b"another")))
    ((_, block),) = served(server, 1)
    assert (block.status, block.data) == (Status.UNKNOWN, b"")


def test_a_fleet_with_too_much_to_send_says_when_to_come_back(shelf: FileShelf) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET, in_all=4)
    server.ask(wish("a", 0, 1, 2))
    server.ask(wish("b", 0, 1))
    (device, block), *rest = served(server, 4)
    assert (device, block.status, block.wait_s) == ("b", Status.BUSY, 30)
    assert [device for device, _ in rest] == ["a", "a", "a"]


@pytest.mark.parametrize(
    "change",
    [
        lambda good: Incoming(good.topic, good.payload, retained=True),
        lambda good: Incoming(good.topic.replace("/a/", "/b/"), good.payload),
        lambda good: Incoming(good.topic.replace(FLEET, "other"), good.payload),
        lambda good: Incoming(topic(FLEET, "a", Channel.EVENT), good.payload),
        lambda good: Incoming(good.topic, good.payload + b" " * 4096),
        lambda good: Incoming(good.topic, b"{"),
        lambda good: Incoming(good.topic, render(Presence("a", "boot", True, "1", 1))),
    ],
    ids=["retained", "device", "fleet", "channel", "long", "json", "kind"],
)
def test_what_is_no_request_is_dropped(
    shelf: FileShelf, change: Callable[[Incoming], Incoming]
) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    server.ask(change(wish("a", 0)))
    server.ask(wish("z", 0))
    ((device, _),) = served(server, 1)
    assert device == "z"


def test_an_offset_past_the_end_is_not_answered(shelf: FileShelf) -> None:
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    server.ask(wish("a", len(RAW) + 1))
    server.ask(wish("a", len(RAW)))
    ((_, block),) = served(server, 1)
    assert (block.offset, block.data) == (len(RAW), b"")


def test_a_shelf_that_cannot_be_read_ends_nothing(shelf: FileShelf) -> None:
    lost = sha256(b"lost")
    shelf.path(lost).mkdir(parents=True)
    server = BlobServer(shelf, NoDeltas(), fleet=FLEET)
    server.ask(wish("a", 0, sha=lost))
    server.ask(wish("b", 0))
    assert served(server, 1)[0][0] == "b"


def delta_answers(shelf: FileShelf, deltas: NoDeltas, *wishes: Incoming) -> list[Block]:
    server = BlobServer(shelf, deltas, fleet=FLEET)
    for one in wishes:
        server.ask(one)
    return [block for _, block in served(server, 1)]


def test_a_delta_is_given_by_blocks_of_its_own_length_under_the_new_digest(
    shelf: FileShelf, tmp_path: Path
) -> None:
    deltas, old = NoDeltas(), sha256(b"old")
    deltas.path = tmp_path / "delta"
    deltas.path.write_bytes(RAW[:1500])
    (block,) = delta_answers(shelf, deltas, wish("a", 1000, base=old))
    assert block == Block(1, DIGEST, 1000, 1500, RAW[1000:1500])
    (block,) = delta_answers(shelf, deltas, wish("a", 1501, base=old))
    assert block.status is Status.UNKNOWN


def test_a_delta_that_is_being_made_is_to_be_asked_for_again_and_others_are_not_there(
    shelf: FileShelf, tmp_path: Path
) -> None:
    deltas, old = NoDeltas(), sha256(b"old")
    assert delta_answers(shelf, deltas, wish("a", 0, base=old))[0].status is Status.UNKNOWN
    deltas.coming = True
    (block,) = delta_answers(shelf, deltas, wish("a", 0, base=old))
    assert (block.status, block.wait_s) == (Status.BUSY, SOON_S)
    deltas.path = tmp_path / "evicted a moment ago"
    assert delta_answers(shelf, deltas, wish("a", 0, base=old))[0].status is Status.UNKNOWN


def test_a_delta_says_as_much_as_its_blob_and_is_withheld_with_it(
    shelf: FileShelf, tmp_path: Path
) -> None:
    deltas = NoDeltas()
    deltas.path = tmp_path / "delta"
    deltas.path.write_bytes(b"of a file that the library does not hand out")
    asked = wish("a", 0, sha=sha256(b"withheld"), base=DIGEST)
    assert delta_answers(shelf, deltas, asked)[0].status is Status.UNKNOWN
