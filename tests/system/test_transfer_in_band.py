"""Blobs in band over a real broker, from a fleet that may do anything."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgefleet_agent.adapters.mqtt_chunks import MqttChunks
from edgefleet_agent.adapters.store import Store
from edgefleet_agent.transfer.mover import Mover
from edgefleet_contract import bundle as b
from edgefleet_contract.blocks import BlobRequest, Block, Status
from edgefleet_contract.errors import PeerError, TransientError
from edgefleet_contract.reasons import Reason
from tests.fleet.test_broker_access import broker
from tests.system.in_band import Teller, honest, identity_of, linked, small_packets, telling

__all__ = ["broker"]
pytestmark = pytest.mark.system
RAW = random.Random(11).randbytes(20 * b.CHUNK_SIZE + 77)
TABLE = b.chunk_list(RAW)


@pytest.fixture
def teller(broker: tuple[Path, int]) -> Iterator[Teller]:
    with telling(*broker) as running:
        running.put(RAW)
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def chunks(broker: tuple[Path, int], teller: Teller) -> Iterator[MqttChunks]:
    made = MqttChunks("a")
    with linked(identity_of(*broker), made):
        yield made


@pytest.fixture
def impatient(broker: tuple[Path, int], teller: Teller) -> Iterator[MqttChunks]:
    """For those who wait in vain."""
    made = MqttChunks("a", silence_s=1.5)
    with linked(identity_of(*broker), made):
        yield made


def fetch(store: Store, chunks: MqttChunks) -> int:
    return Mover(store, [chunks]).fetch_file(
        b.sha256(RAW),
        size=len(RAW),
        chunk_list_sha256=b.sha256(TABLE),
        sources=(),
        what="model",
        progress=lambda done: None,
    )


def refused(store: Store, chunks: MqttChunks) -> Reason:
    with pytest.raises(PeerError) as caught:
        fetch(store, chunks)
    assert not store.has(b.sha256(RAW))
    return caught.value.reason


def runs_asked(teller: Teller, raw: bytes) -> list[range]:
    """The runs of bytes of a blob that were asked for, in that order."""
    requests = [request for request in teller.asked if request.sha256 == b.sha256(raw)]
    return [range(o, o + request.length) for request in requests for o in request.offsets]


def blocks(raw: bytes) -> list[range]:
    """A short block, the rest of its chunk, and chunk by chunk."""
    starts = [0, 4096, *range(b.CHUNK_SIZE, len(raw), b.CHUNK_SIZE)]
    return [range(*both) for both in itertools.pairwise([*starts, len(raw)])]


def test_a_file_arrives_in_a_window_of_blocks_after_a_short_one(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    assert fetch(store, chunks) == len(RAW)
    assert store.read(b.sha256(RAW)) == RAW
    assert runs_asked(teller, RAW) == blocks(RAW)  # each byte once
    asked = [len(r.offsets) for r in teller.asked if r.sha256 == b.sha256(RAW)]
    assert asked[:3] == [1, 1, 7]  # all eight of the first window at once, in two requests


def test_a_cap_holds_in_band_and_nothing_beyond_it_is_asked_for(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    raw = RAW[: 6 * b.CHUNK_SIZE]
    table, cap = b.chunk_list(raw), 200_000
    teller.put(raw)
    mover = Mover(store, [chunks])
    mover.allow(None, max_bytes_per_s=cap)
    began = time.monotonic()
    mover.fetch_file(
        b.sha256(raw),
        size=len(raw),
        chunk_list_sha256=b.sha256(table),
        sources=(),
        what="model",
        progress=lambda done: None,
    )
    took = time.monotonic() - began
    assert (len(raw) - cap) / cap <= took < 10
    assert runs_asked(teller, raw) == blocks(raw)  # each byte once
    asked = [len(r.offsets) for r in teller.asked if r.sha256 == b.sha256(raw)]
    assert asked[:3] == [1, 1, cap // b.CHUNK_SIZE - 1]
    assert set(asked[3:]) <= {1}  # one for each that came


def test_blocks_fit_the_largest_packet_that_the_broker_takes(
    store: Store, broker: tuple[Path, int]
) -> None:
    with small_packets(broker[0], 20_000) as port, telling(broker[0], port) as teller:
        teller.put(RAW)
        made = MqttChunks("a")
        with linked(identity_of(broker[0], port), made):
            assert fetch(store, made) == len(RAW)
    lengths = [run.stop - run.start for run in runs_asked(teller, RAW)]
    assert lengths == [4096, 12_288, *[16_384] * 79, 77]
    assert store.read(b.sha256(RAW)) == RAW


def test_what_is_good_on_disk_is_not_asked_for(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    spoilt = bytearray(RAW[: 9 * b.CHUNK_SIZE])
    spoilt[4 * b.CHUNK_SIZE] ^= 1
    store.part_path(b.sha256(RAW)).write_bytes(spoilt)
    assert fetch(store, chunks) == len(RAW) - 8 * b.CHUNK_SIZE
    found = [run.start for run in runs_asked(teller, RAW)]
    assert found[:3] == [4 * b.CHUNK_SIZE, 4 * b.CHUNK_SIZE + 4096, 9 * b.CHUNK_SIZE]


def test_blocks_may_come_twice_and_in_any_order(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    shuffle = random.Random(3).shuffle
    held: list[bytes] = []

    def mixed(request: BlobRequest, blocks: list[Block]) -> list[bytes]:
        held.extend(raw for block in blocks for raw in (block.render(), block.render()))
        shuffle(held)
        if request.sha256 == b.sha256(RAW) and len(held) < 12:
            return held[:2]
        sent = list(held)
        del held[len(sent) // 2 :]
        return sent

    teller.answers = mixed
    assert fetch(store, chunks) == len(RAW)
    assert store.read(b.sha256(RAW)) == RAW


def test_blocks_that_are_lost_are_asked_for_again(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    lost = random.Random(5)
    teller.answers = lambda _, blocks: [block.render() for block in blocks if lost.random() > 0.15]
    assert fetch(store, chunks) == len(RAW)
    assert store.read(b.sha256(RAW)) == RAW


def test_a_wrong_block_is_dropped_and_the_rest_kept(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    wrong = 5 * b.CHUNK_SIZE

    def lie(_: BlobRequest, blocks: list[Block]) -> list[bytes]:
        return [
            replace(block, data=bytes(len(block.data))).render()
            if block.offset == wrong and block.sha256 == b.sha256(RAW)
            else block.render()
            for block in blocks
        ]

    teller.answers = lie
    assert refused(store, chunks) is Reason.DIGEST_MISMATCH
    part = store.part_path(b.sha256(RAW)).read_bytes()
    assert part[:wrong] == RAW[:wrong]
    assert part[wrong : wrong + b.CHUNK_SIZE] != bytes(b.CHUNK_SIZE)
    teller.answers = honest
    assert fetch(store, chunks) < len(RAW) - wrong + 1
    assert store.read(b.sha256(RAW)) == RAW


@pytest.mark.parametrize(
    "change",
    [
        lambda block: replace(block, request=block.request ^ 1).render(),
        lambda block: replace(block, sha256=b.sha256(b"another")).render(),
        lambda block: replace(block, data=block.data[:-1]).render(),
        lambda block: block.render()[:59],
        lambda block: b"efb2" + block.render()[4:],
        lambda block: b"",
        lambda block: bytes(300_000),
    ],
    ids=["number", "digest", "short", "header", "version", "empty", "huge"],
)
def test_answers_to_something_else_are_no_answers(
    store: Store, impatient: MqttChunks, teller: Teller, change: object
) -> None:
    teller.answers = lambda _, blocks: [change(block) for block in blocks]  # type: ignore[operator]
    with pytest.raises(TransientError, match="no block came"):
        Mover(store, [impatient]).fetch(
            b.sha256(TABLE), max_bytes=len(TABLE), sources=(), what="table"
        )


def test_a_digest_that_the_fleet_does_not_have_fails_at_once(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    del teller.blobs[b.sha256(RAW)]
    began = time.monotonic()
    assert refused(store, chunks) is Reason.NOT_FOUND
    assert time.monotonic() - began < 1.0
    assert [r.sha256 for r in teller.asked].count(b.sha256(RAW)) == 1


def test_a_document_is_cut_off_at_its_limit(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    with pytest.raises(PeerError) as caught:
        Mover(store, [chunks]).fetch(
            b.sha256(RAW), max_bytes=len(RAW) - 1, sources=(), what="bundle.json"
        )
    assert caught.value.reason is Reason.TOO_LARGE
    assert sum(len(r.offsets) for r in teller.asked) == 1


def test_a_busy_fleet_says_when_to_come_back_and_is_left_alone_until_then(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    teller.answers = lambda request, _: [
        Block(request.request, request.sha256, status=Status.BUSY, wait_s=40).render()
    ]
    mover = Mover(store, [chunks])
    for _ in range(2):
        with pytest.raises(TransientError) as caught:
            mover.fetch(b.sha256(TABLE), max_bytes=len(TABLE), sources=(), what="table")
        assert 35 < (caught.value.retry_after_s or 0) <= 40
    assert len(teller.asked) == 1


def test_a_fleet_that_says_nothing_is_given_up(
    store: Store, impatient: MqttChunks, teller: Teller
) -> None:
    teller.answers = lambda *_: []
    with pytest.raises(TransientError, match="no block came in"):
        fetch(store, impatient)


OLD = b.sha256(b"old")
DELTA = RAW[: 10 * b.CHUNK_SIZE + 5]


def fetch_delta(store: Store, chunks: MqttChunks) -> bytes | None:
    path = Mover(store, [chunks]).fetch_delta(
        OLD, b.sha256(RAW), size=len(RAW), sources=(), what="delta", progress=lambda _: None
    )
    return path.read_bytes() if path else None


def test_a_delta_arrives_in_band_and_goes_on_where_it_ended(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    teller.blobs[f"{b.sha256(RAW)}/delta/{OLD}"] = DELTA
    shuffle = random.Random(4)
    teller.answers = lambda _, blocks: [
        block.render() for block in shuffle.sample(blocks, len(blocks)) if shuffle.random() > 0.1
    ]
    store.delta_path(OLD, b.sha256(RAW)).write_bytes(DELTA[:100_000])
    assert fetch_delta(store, chunks) == DELTA
    assert min(offset for request in teller.asked for offset in request.offsets) == 100_000
    assert fetch_delta(store, chunks) == DELTA  # nothing is left of it
    assert {request.base for request in teller.asked} == {OLD}


def test_a_fleet_without_a_delta_says_so_at_once(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    began = time.monotonic()
    assert fetch_delta(store, chunks) is None
    assert len(teller.asked) == 1
    assert fetch(store, chunks) == len(RAW)
    assert time.monotonic() - began < 5


def test_a_fleet_that_makes_a_delta_is_asked_again_and_holds_nothing_else_up(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    teller.blobs[f"{b.sha256(RAW)}/delta/{OLD}"] = DELTA
    busy = [2, 40]

    def sometimes(request: BlobRequest, blocks: list[Block]) -> list[bytes]:
        if request.base and busy:
            wait_s = busy.pop(0)
            block = Block(request.request, request.sha256, status=Status.BUSY, wait_s=wait_s)
            return [block.render()]
        return honest(request, blocks)

    teller.answers = sometimes
    mover = Mover(store, [chunks])
    began = time.monotonic()
    assert fetch_delta(store, chunks) is None  # 2 s are waited for, 40 s are not
    assert 2 < time.monotonic() - began < 5
    assert mover.fetch(b.sha256(TABLE), max_bytes=len(TABLE), sources=(), what="x") == TABLE
    assert fetch_delta(store, chunks) == DELTA


def test_a_fleet_that_knows_no_deltas_gives_the_file_which_is_too_long_for_one(
    store: Store, chunks: MqttChunks, teller: Teller
) -> None:
    teller.answers = lambda request, _: [
        Block(request.request, request.sha256, offset, len(RAW), RAW[offset:][:1000]).render()
        for offset in request.offsets
    ]
    assert fetch_delta(store, chunks) is None
    assert len(teller.asked) == 1
    assert not list(store.part_path(b.sha256(RAW)).parent.iterdir())
