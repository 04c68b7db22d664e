"""Frames: however the stream is cut, the same messages come out."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_agent.runtime import slots
from edgefleet_agent.runtime.frames import (
    MAX_BODY,
    Ask,
    BrokenFrame,
    Copy,
    Frame,
    FrameReader,
    header,
    pack_closing,
    pack_copy,
    pack_opening,
    unpack_closing,
    unpack_copy,
    unpack_opening,
)

FRAMES = [Frame(1, 1, b"abc"), Frame(2**63, 200, b""), Frame(3, 500, bytes(range(256)))]
STREAM = b"".join(header(f.id, f.code, len(f.body)) + f.body for f in FRAMES)


def test_every_cut_gives_the_same_frames() -> None:
    for cut in range(len(STREAM) + 1):
        reader = FrameReader()
        assert [*reader.feed(STREAM[:cut]), *reader.feed(STREAM[cut:])] == FRAMES


def test_byte_by_byte_gives_the_same_frames() -> None:
    reader = FrameReader()
    assert [f for i in range(len(STREAM)) for f in reader.feed(STREAM[i : i + 1])] == FRAMES


def test_an_absurd_length_is_refused_before_it_is_awaited() -> None:
    with pytest.raises(BrokenFrame, match="at most"):
        list(FrameReader().feed(struct.pack("<IQHH", MAX_BODY + 1, 1, 1, 0)))


@pytest.fixture
def both_sides() -> Iterator[tuple[slots.Slots, slots.Slots]]:
    """Two maps of one memory, as front and worker have them."""
    fd = slots.make()
    yield slots.Slots(fd), slots.Slots(fd)
    os.close(fd)


def test_a_body_in_a_slot_is_read_where_it_lies(
    both_sides: tuple[slots.Slots, slots.Slots],
) -> None:
    ours, theirs = both_sides
    body = os.urandom(100_000)
    ours.put(2, body)
    stream = header(7, Ask.INFER_V2, len(body), 2) + header(8, 200, 2) + b"ok"
    for cut in (0, 5, 16, 20, len(stream)):
        reader = FrameReader(theirs.view)
        first, second = [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])]
        assert (first.id, first.slot, bytes(first.body)) == (7, 2, body)
        assert second == Frame(8, 200, b"ok")


@pytest.mark.parametrize(("slot", "size"), [(3, 1), (65535, 1), (1, slots.SIZE + 1), (2, MAX_BODY)])
def test_a_slot_that_is_none_is_refused(
    both_sides: tuple[slots.Slots, slots.Slots], slot: int, size: int
) -> None:
    with pytest.raises(BrokenFrame, match=f"slot {slot}"):
        list(FrameReader(both_sides[0].view).feed(header(1, 200, size, slot)))
    with pytest.raises(BrokenFrame):  # and without shared memory there is none at all
        list(FrameReader().feed(header(1, 200, 1, 1)))


def test_neither_side_can_take_the_memory_away_from_the_other() -> None:
    fd = slots.make()
    for size in (0, 1, slots.COUNT * slots.SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    os.close(fd)


def test_what_is_no_memory_of_ours_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 4096)
    with (tmp_path / "file").open("r+b") as file, pytest.raises(OSError, match="not the shared"):
        slots.Slots(file.fileno())


def test_a_large_body_gives_its_memory_back(both_sides: tuple[slots.Slots, slots.Slots]) -> None:
    ours, theirs = both_sides
    ours.put(1, b"\1" * slots.SIZE)
    ours.clear(1, slots.SIZE)
    left = theirs.view(1, slots.SIZE)
    assert left is not None
    assert bytes(left[: slots.KEPT]) == b"\1" * slots.KEPT
    assert not any(left[slots.KEPT :])  # zeros: the pages are gone


@pytest.mark.parametrize(
    ("size", "worth"),
    [
        (0, False),
        (slots.LEAST - 1, False),
        (slots.LEAST, True),
        (slots.SIZE, True),
        (slots.SIZE + 1, False),
    ],
)
def test_only_what_is_worth_it_and_fits_goes_to_a_slot(size: int, worth: bool) -> None:
    assert slots.fits(bytes(size)) is worth


@pytest.mark.parametrize("body", [b"", b"{}", bytes(range(256))])
def test_a_copy_unpacks_to_what_was_packed(body: bytes) -> None:
    copy = Copy(Ask.PREDICT_V1, 1234, body, b"the answer")
    assert unpack_copy(pack_copy(copy)) == copy


@pytest.mark.parametrize("size", [None, *range(33), 2**31])
def test_an_opening_says_where_the_json_ends_and_aligns_what_follows(size: int | None) -> None:
    opening = pack_opening(size)
    assert unpack_opening(opening + b"the body") == (len(opening), size)
    assert size is None or (len(opening) + size) % 16 == 0


@pytest.mark.parametrize("size", [0, 1, 2**31])
def test_a_closing_says_where_the_json_of_an_answer_ends(size: int) -> None:
    assert unpack_closing(pack_closing(size) + b"the body") == (b"the body", size)
