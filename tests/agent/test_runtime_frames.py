"""Frames: however the stream is cut, the same messages come out."""

from __future__ import annotations

import struct

import pytest

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
