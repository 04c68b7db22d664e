"""What a delta may do to a reader: make the file, or nothing that counts."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_contract import delta as d
from edgefleet_contract.bundle import sha256
from edgefleet_contract.delta import Code, Head, Kind, Operation
from edgefleet_contract.errors import Malformed
from edgefleet_contract.lanes import Layout
from tests.contract.deltas import Out, by_operations, noise, packed, read, whole

OLD = noise("old", 150_000)
NEW = bytes((a + b % 3) % 256 for a, b in zip(OLD[:140_000], noise("new", 140_000), strict=True))
NEW += noise("more", 10_004)
EVERY = (
    Operation(Code.COPY, 0, 1),
    Operation(Code.SUB, 1, 3),
    Operation(Code.SUB, 4, 70_000, Layout.CRUMBS),
    Operation(Code.XOR, 70_004, 20_000, Layout.PAIRS),
    Operation(Code.SUB, 90_004, 20_000, Layout.QUADS),
    Operation(Code.SUB, 110_004, 29_992, Layout.OCTETS),
    Operation(Code.NEW, 0, 4),
    Operation(Code.NEW, 0, 10_004, Layout.QUADS),
)
FRESH = OLD[:1] + NEW[1:]


GOOD = {
    "zstd": whole(Kind.ZSTD, OLD, FRESH),
    "zstd-prefix": whole(Kind.PREFIX, OLD, FRESH),
    "tensor": by_operations(OLD, FRESH, EVERY),
}


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_makes_the_new_file(kind: Kind) -> None:
    assert read(GOOD[kind], OLD, sha256(FRESH), len(FRESH)) == FRESH


def test_a_head_is_read_as_it_was_written() -> None:
    files = (sha256(OLD), len(OLD), sha256(FRESH), len(FRESH))
    head, _ = d.parse_head(lambda at, most: GOOD["tensor"][at : at + most])
    assert (head.kind, head.operations) == (Kind.TENSOR, EVERY)
    again = d.render_head(Head(Kind.TENSOR, *files, head.packed, EVERY))
    assert GOOD["tensor"].startswith(again)


@pytest.mark.parametrize("kind", Kind)
def test_no_delta_that_is_cut_makes_a_file(kind: Kind) -> None:
    old, new = OLD[:2000], FRESH[:2000]
    operations = (Operation(Code.COPY, 0, 1), Operation(Code.SUB, 1, 1999))
    tensor = kind is Kind.TENSOR
    delta = by_operations(old, new, operations) if tensor else whole(kind, old, new)
    assert read(delta, old, sha256(new), len(new)) == new
    for end in range(len(delta)):
        out = Out()
        with pytest.raises(Malformed):
            read(delta[:end], old, sha256(new), len(new), out)
        assert len(out.raw) <= len(new)


@pytest.mark.parametrize("kind", Kind)
def test_no_mutant_makes_another_file_or_takes_more_than_it_may(kind: Kind) -> None:
    dice = random.Random(kind.value)
    longest = 0.0
    for _ in range(700):
        delta = bytearray(GOOD[kind])
        for _ in range(dice.choice((1, 1, 1, 2, 8))):
            # Half of them in the head and the first frames, where the decisions are.
            delta[dice.randrange(dice.choice((1200, len(delta))))] = dice.randrange(256)
        out, begun = Out(), time.process_time()
        try:
            made = read(bytes(delta), OLD, sha256(FRESH), len(FRESH), out)
        except Malformed:
            made = FRESH
        longest = max(longest, time.process_time() - begun)
        assert made == FRESH
        assert len(out.raw) <= len(FRESH)
    assert longest < 5


def changed(**fields: object) -> bytes:
    """The good tensor delta with another head."""
    delta = GOOD["tensor"]
    head, start = d.parse_head(lambda at, most: delta[at : at + most])
    values = {name: getattr(head, name) for name in Head.__slots__} | fields
    forged = object.__new__(Head)
    for name, value in values.items():
        object.__setattr__(forged, name, value)
    return d.render_head(forged) + delta[start:]


CONTRADICTIONS: dict[str, dict[str, object]] = {
    "an operation is missing": {"operations": EVERY[:-1]},
    "an operation too many": {"operations": (*EVERY, Operation(Code.COPY, 0, 1))},
    "reads past the end": {"operations": (Operation(Code.COPY, len(OLD) - 1, 2), *EVERY[1:])},
    "no operations": {"operations": ()},
    "20,001 operations": {"operations": (Operation(Code.COPY, 0, 1),) * 20_001},
    "no streams": {"packed": {}},
    "one stream": {"packed": {"literal": 1}},
    "another kind": {"kind": Kind.ZSTD},
    "a shorter old file": {"old_size": 10},
    "a huge new file": {"new_size": 2**40},
    "a longer new file": {"new_size": len(FRESH) + 1},
    "another old file": {"old": sha256(b"other")},
    "another new file": {"new": sha256(b"other")},
    "a path": {"new": "../../etc/passwd"},
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_head_that_contradicts_itself_or_the_order_is_refused(what: str) -> None:
    out = Out()
    with pytest.raises(Malformed):
        read(changed(**CONTRADICTIONS[what]), OLD, sha256(FRESH), len(FRESH), out)
    assert not out.raw


ROWS = """
    [0,-1,1] [0,0,-1] [0,0,0] [0,0] [0,0,1,1] [1,0,1] [1,0,1,3] [1,0,6,4] [1,0,3,0] [4,0,1] [-1,0,1]
    [3,1] [3,1,2] [3,0,1] [] [true,0,1] [0,0,9007199254740991] [0,9007199254740991,1]
"""


@pytest.mark.parametrize("row", ROWS.split())
def test_an_operation_that_is_none_is_refused(row: str) -> None:
    raw = GOOD["tensor"].replace(b'"operations":[[0,0,1]', b'"operations":[' + row.encode())
    head = raw.index(b"{")
    size = raw.index(b"}}") + 2 - head
    raw = d.MAGIC + size.to_bytes(4, "big") + raw[head:]
    with pytest.raises(Malformed):
        read(raw, OLD, sha256(FRESH), len(FRESH))


def bomb(size: int) -> bytes:
    """A delta that says it makes as much as FRESH, with a stream that unpacks into `size` zeros."""
    stream = packed(bytes(size), window_log=20)
    files = (sha256(OLD), len(OLD), sha256(FRESH), len(FRESH))
    return d.render_head(Head(Kind.ZSTD, *files, {d.WHOLE: len(stream)})) + stream


def test_a_bomb_is_not_unpacked_beyond_what_was_asked_for() -> None:
    delta, out = bomb(256_000_000), Out()
    tracemalloc.start()
    with pytest.raises(Malformed):
        read(delta, OLD, sha256(FRESH), len(FRESH), out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(out.raw) == len(FRESH)
    assert peak < 4_000_000


@pytest.mark.parametrize(("kind", "window_log"), [(Kind.ZSTD, 24), (Kind.TENSOR, 22)])
def test_a_frame_that_needs_a_larger_window_is_refused(kind: Kind, window_log: int) -> None:
    stream = packed(FRESH, window_log=window_log)
    name = d.WHOLE if kind is Kind.ZSTD else d.LITERAL
    operations = (Operation(Code.NEW, 0, len(FRESH)),) if kind is Kind.TENSOR else ()
    files = (sha256(OLD), len(OLD), sha256(FRESH), len(FRESH))
    delta = d.render_head(Head(kind, *files, {name: len(stream)}, operations)) + stream
    with pytest.raises(Malformed, match="memory"):
        read(delta, OLD, sha256(FRESH), len(FRESH))


def test_an_old_file_that_is_cut_or_spoilt_makes_nothing_that_counts() -> None:
    out = Out()
    with pytest.raises(Malformed):
        read(GOOD["tensor"], OLD[:-60_000], sha256(FRESH), len(FRESH), out)
    delta = by_operations(OLD, FRESH, EVERY)
    spoilt = OLD[:90_000] + b"?" + OLD[90_001:]
    delta = delta.replace(sha256(OLD).encode(), sha256(spoilt).encode())
    with pytest.raises(Malformed) as caught:
        read(delta, spoilt, sha256(FRESH), len(FRESH))
    assert caught.value.reason == "digest_mismatch"


@given(st.binary(max_size=400))
def test_bytes_that_are_no_delta_are_refused(raw: bytes) -> None:
    for delta in (raw, d.MAGIC + raw, d.MAGIC + len(raw).to_bytes(4, "big") + raw):
        with pytest.raises(Malformed):
            read(delta, OLD, sha256(FRESH), len(FRESH))


def test_a_head_of_many_operations_is_read_soon() -> None:
    operations = (Operation(Code.COPY, 0, 1),) * 14_000
    new = OLD[:1] * 14_000
    delta = by_operations(OLD, new, operations)
    begun = time.process_time()
    assert read(delta, OLD, sha256(new), len(new)) == new
    assert time.process_time() - begun < 5
