"""A file on its way in: chunks in any order, found again by hashing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_agent.adapters.fs import FileSystem
from edgefleet_agent.transfer.gather import Gather
from edgefleet_contract import bundle as b
from edgefleet_contract.errors import PeerError
from edgefleet_contract.reasons import Reason

C = b.CHUNK_SIZE
RAW = random.Random(1).randbytes(6 * C + 5)


def gather(path: Path, file: object, raw: bytes = RAW) -> Gather:
    return Gather(
        FileSystem(),
        file,  # type: ignore[arg-type]
        size=len(raw),
        table=b.chunk_list(raw),
        what="x",
        progress=lambda _: None,
    )


def blocks() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Pieces of the file: halves of chunks, each at least once, in any order."""
    every = [(start, C // 2) for start in range(0, len(RAW), C // 2)]
    more = st.lists(st.sampled_from(every), max_size=10)
    return more.flatmap(lambda again: st.permutations(every + again))


@settings(max_examples=30, deadline=None)
@given(order=blocks())
def test_pieces_in_any_order_and_more_than_once_make_the_file(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("part") / "part"
    with FileSystem().open_resumable(path) as file:
        made = gather(path, file)
        for start, size in order:
            made.take(start, RAW[start : start + size])
        assert made.is_complete
        assert made.wanted == ()
        made.finish(b.sha256(RAW))
    assert path.read_bytes() == RAW


def test_what_is_wanted_are_the_runs_that_are_missing(tmp_path: Path) -> None:
    with FileSystem().open_resumable(tmp_path / "part") as file:
        made = gather(tmp_path, file)
        assert made.wanted == (range(len(RAW)),)
        made.take(2 * C, RAW[2 * C : 4 * C + 7])  # two chunks, and the beginning of one
        assert made.wanted == (range(2 * C), range(4 * C, len(RAW)))
        made.take(6 * C, RAW[6 * C :])
        assert made.wanted == (range(2 * C), range(4 * C, 6 * C))


@pytest.mark.parametrize("spoilt", [0, 3, 6])
def test_a_new_process_finds_every_good_chunk_and_no_other(tmp_path: Path, spoilt: int) -> None:
    part = tmp_path / "part"
    raw = bytearray(RAW + b"tail of something else")
    raw[spoilt * C] ^= 0x80
    part.write_bytes(raw)
    with FileSystem().open_resumable(part) as file:
        made = gather(tmp_path, file)
        (gap,) = made.wanted
        assert gap.start == spoilt * C
        made.take(gap.start, RAW[gap.start : gap.stop])
        made.finish(b.sha256(RAW))
    assert part.read_bytes() == RAW


def test_a_wrong_chunk_leaves_no_trace(tmp_path: Path) -> None:
    with FileSystem().open_resumable(tmp_path / "part") as file:
        made = gather(tmp_path, file)
        made.take(C, RAW[C : 2 * C])
        with pytest.raises(PeerError) as caught:
            made.take(3 * C, bytes(C))
        assert caught.value.reason is Reason.DIGEST_MISMATCH
        assert made.done == C
    assert (tmp_path / "part").read_bytes() == bytes(C) + RAW[C : 2 * C]


def test_bytes_beyond_the_end_are_refused(tmp_path: Path) -> None:
    with FileSystem().open_resumable(tmp_path / "part") as file:
        made = gather(tmp_path, file)
        with pytest.raises(PeerError) as caught:
            made.take(6 * C, RAW[6 * C :] + b"x")
        assert caught.value.reason is Reason.TOO_LARGE


def test_an_empty_file_is_complete_at_once(tmp_path: Path) -> None:
    with FileSystem().open_resumable(tmp_path / "part") as file:
        made = gather(tmp_path, file, b"")
        assert made.is_complete
        made.finish(b.sha256(b""))


def test_a_whole_that_is_not_what_was_signed_is_refused(tmp_path: Path) -> None:
    with FileSystem().open_resumable(tmp_path / "part") as file:
        made = gather(tmp_path, file)
        made.take(0, RAW)
        with pytest.raises(PeerError) as caught:
            made.finish(b.sha256(b"another"))
        assert caught.value.reason is Reason.DIGEST_MISMATCH
